"""Initial parameters copied from a trained network, layer by layer."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.files import expanded, resolved
from alexnet_jax.model import tower
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams, params_digest
from alexnet_jax.parallel.mesh import place_like
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.run_config import InitialLayersRecord
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.step import TrainState

Shapes = dict[str, dict[str, tuple[int, ...]]]
"""Shapes of parameters, see `tower.parameter_shapes`."""


@runtime_checkable
class InitialModel(Protocol):
    """Trained network to copy layers from; implemented by `weights.trained_model.TrainedModel`."""

    @property
    def path(self) -> Path:
        """Run folder or file from which the network was loaded."""
        ...

    @property
    def step(self) -> int:
        """Training step at which the network was saved."""
        ...

    @property
    def network(self) -> Network:
        """Architecture of the network."""
        ...

    @property
    def params(self) -> HostParams:
        """Parameters, stacked along a first axis of towers."""
        ...

    @property
    def classes(self) -> list[str]:
        """Class names, ordered by label."""
        ...


@dataclass(frozen=True)
class InitialLayers:
    """Layers copied from a trained network into the initial parameters of a run.

    Attributes:
      record: origin of the layers, for the run's config.
      params: parameters of the copied layers, stacked along a first axis of towers; None if the trained network is no longer
        available and `record` was read from the run that was initialized from it.
      summary: one line naming the layers that are copied, those that are not with the reason, and those that are not used.
    """

    record: InitialLayersRecord
    params: HostParams | None = None
    summary: str = ""

    def copy_into(self, state: TrainState) -> TrainState:
        """Return `state` with the copied layers.

        Raises:
          UserError: if the trained network is no longer available.
        """
        if self.params is None:
            raise UserError(
                f"{self.record.path} is no longer available, and the run that was initialized from it has no checkpoint: "
                "pass a different --init-from"
            )
        copied = {name: jax.tree.map(place_like, state.params[name], layer) for name, layer in self.params.items()}
        return replace(state, params={**state.params, **copied})


def select_initial_layers(
    config: TrainConfig, network: Network, classes: list[str], model: InitialModel | None, started: Path | None
) -> InitialLayers | None:
    """Select the layers to copy: those whose name and shape match, restricted to `config.init_layers` if given.

    The last layer is copied only if the class names are the same.

    Args:
      config: training config, with `init_from` and `init_layers`.
      network: network to train.
      classes: class names of the training data.
      model: trained network at `config.init_from`; None if it is no longer available.
      started: run folder, or folder of run folders, to search for an earlier run that was initialized from
        `config.init_from`; None for a new run.

    Returns:
      Layers to copy; None if training starts from random parameters.

    Raises:
      UserError: if the trained network is not available and no run was initialized from it, or if it lacks a requested layer or
        has no matching layer.
    """
    if config.init_from is None:
        return None
    requested = None if config.init_layers is None else list(config.init_layers)
    if model is None:
        record = recorded_initial_layers(config, started)
        if record is None:
            raise UserError(f"config.init_from requires initial_model: pass initial_model=load({str(config.init_from)!r})")
        return InitialLayers(record)
    shapes = tower.parameter_shapes(network)
    differences = _differences(network, shapes, classes, model)
    matching = {name: layer for name, layer in model.params.items() if name in shapes and name not in differences}
    copied = {name: layer for name, layer in matching.items() if requested is None or name in requested}
    if missing := [name for name in requested or [] if name not in copied]:
        problem = f"cannot copy layer {missing[0]} from {model} to {network.name}"
        reason = differences.get(missing[0], f"{network.name} has no such layer")
        raise UserError(f"{problem} ({reason}); layers that match: {_join(matching)}")
    if not copied:
        name, reason = next(iter(differences.items()))
        raise UserError(
            f"no layer of {model} ({model.network.name}) matches {network.name} ({name}: {reason}): pass a different --init-from"
        )
    new = [f"{name} ({differences.get(name, 'not in --init-layers')})" for name in shapes if name not in copied]
    unused = [name for name in model.params if name not in shapes]
    summary = f"copied {_join(copied)} from {model}; newly initialized: {_join(new)}; not used: {_join(unused)}"
    record = InitialLayersRecord(str(model.path), model.step, params_digest(model.params)[:16], requested)
    return InitialLayers(record, copied, summary)


def _differences(network: Network, shapes: Shapes, classes: list[str], model: InitialModel) -> dict[str, str]:
    """Return the layers of a network to train that cannot be copied from a trained one, with the reason."""
    differences: dict[str, str] = {}
    for name, layer in shapes.items():
        if name not in model.params:
            differences[name] = f"{model.network.name} has no such layer"
            continue
        other = jax.tree.map(np.shape, model.params[name])
        for kind in sorted(layer, reverse=True):  # the kernel first
            if layer[kind] != other.get(kind):
                sizes = ("×".join(map(str, each)) for each in (layer[kind], other.get(kind, ())))
                differences[name] = "{} of shape {} instead of {}, towers first".format(kind, *sizes)
                break
    last = list(network.named_layers)[-1]
    if model.classes != classes and last in model.params:
        differences[last] = "the classes differ"
    return differences


def recorded_initial_layers(config: TrainConfig, started: Path | None) -> InitialLayersRecord | None:
    """Return the `InitialLayers.record` of a run that was initialized from `config.init_from`, or None.

    Args:
      config: training config, with `init_from` and `init_layers`.
      started: run folder, or folder of run folders, to search; None for a new run, which has no record.
    """
    assert config.init_from is not None
    for folder in () if started is None else (started, *started.glob("*")):
        try:
            record = InitialLayersRecord(**RunDirectory(folder).config["initial_layers"])
        except (OSError, UserError, KeyError, TypeError):
            continue
        paths = (record.path, f"{record.path}/checkpoints/{record.step}")
        requested = None if config.init_layers is None else list(config.init_layers)
        if str(resolved(expanded(config.init_from))) in paths and record.layers == requested:
            return record
    return None


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
