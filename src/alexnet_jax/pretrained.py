"""Where a training begins with what another has learned: layers carried over by their names."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_jax import tower
from alexnet_jax.console import console
from alexnet_jax.errors import UserError
from alexnet_jax.experiment import Experiment
from alexnet_jax.network import Network
from alexnet_jax.step import TrainState
from alexnet_jax.tower import HostParams
from alexnet_jax.trained import load


@dataclass(frozen=True)
class Pretrained:
    """What a training begins with.

    Attributes:
      about: which network it is, as JSON, for the configuration of the run: the run it comes from and the step, a checksum of
        its parameters, and the layers that were asked for, or None.
      layers: parameters of the layers that are carried over, as `tower.HostParams` says; None if the network cannot be read any
        more, and is known only from the run that began with it.
      told: the layers that are carried over, those that are new, and those that are left, in a line.
    """

    about: dict[str, Any]
    layers: HostParams | None = None
    told: str = ""

    def put_into(self, state: TrainState) -> TrainState:
        """The initial state with the layers carried over in their places; says which they are.

        Raises:
          UserError: if the network cannot be read any more.
        """
        if self.layers is None:
            raise UserError(f"{self.about['run']} cannot be read any more, and the run that began with it has no checkpoint yet")
        console.print(self.told, markup=False)
        carried = {name: jax.tree.map(_placed, state.params[name], layer) for name, layer in self.layers.items()}
        return replace(state, params={**state.params, **carried})


def pretrained(experiment: Experiment, network: Network, classes: list[str], begun: Path | None) -> Pretrained | None:
    """Chooses the layers that an experiment begins with: those of the same name and shape, of them those it names.

    The last one is among them only if its classes are the same.

    Args:
      experiment: whose `init_from` and `init_layers` say what to begin with.
      network: the one to be trained.
      classes: of the data it is trained on.
      begun: folder of a run that may have begun like this, or of several such: if the trained network is gone, they know what
        it was. None is a training that begins anew.

    Returns:
      None if the experiment begins with random weights.

    Raises:
      UserError: if layers are named but no trained network, or if that cannot be read, or has none of the layers, or not all
        that are named.
    """
    path, asked = experiment.init_from, experiment.init_layers and list(experiment.init_layers)
    if path is None:
        if asked is not None:
            raise UserError(f"it begins with {_list(asked)} of a trained network: say which, --init-from RUN")
        return None
    try:
        trained = load(path)
    except UserError:
        for about in () if begun is None else filter(None, map(_begun_with, (begun, *begun.glob("*")))):
            names = (about["run"], f"{about['run']}/checkpoints/{about['step']}")
            if str(path.resolve()) in names and about["layers"] == asked:
                return Pretrained(about)
        raise
    here = tower.shapes(network)
    fits = {name: layer for name, layer in trained.params.items() if here.get(name) == jax.tree.map(np.shape, layer)}
    if trained.classes != classes:
        fits.pop(list(network.named_layers)[-1], None)
    carried = {name: layer for name, layer in fits.items() if asked is None or name in asked}
    if missing := [name for name in asked or [] if name not in carried]:
        raise UserError(f"{network.name} cannot begin with {missing[0]} of {trained}; it could with {_list(fits)}")
    if not carried:
        raise UserError(f"{trained}, a {trained.network.name}, has no layer that {network.name} could begin with")
    new, left = [name for name in here if name not in carried], [name for name in trained.params if name not in here]
    told = f"begins with {_list(carried)} of {trained}; new: {_list(new)}; left: {_list(left)}"
    about = {"run": str(trained.run), "step": trained.step, "checksum": _checksum(trained.params), "layers": asked}
    return Pretrained(about, carried, told)


def _checksum(params: HostParams) -> str:
    digest = hashlib.sha256()
    for path, values in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:16]


def _begun_with(run: Path) -> dict[str, Any] | None:
    try:
        return json.loads((run / "config.json").read_text()).get("pretrained")
    except (OSError, ValueError):
        return None


def _placed(array: jax.Array, values: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(array.shape, array.sharding, lambda part: values[part])


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
