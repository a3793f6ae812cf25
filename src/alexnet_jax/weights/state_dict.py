"""Parameters by PyTorch's names and in its shapes: "conv2.weight" is [kernels, channels, rows, columns], grouped where the
towers are apart; "fc6.weight" is [units, inputs], and sees maps as (channel, row, column). Only the order of numbers changes,
so there and back are the same bits.

Units of the last tower that stand for no class are left out, and come back as zeros.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Conv, Dense, Weighted
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from alexnet_jax.model.tower import HostParams

StateDict = Mapping[str, np.ndarray]
"""Layer name, a point, and "weight" or "bias", to the array."""


class _Place(NamedTuple):
    """A layer with weights in its network: what it reads is maps of this shape, (height, width, channels), or (features,)."""

    layer: Weighted
    reads: tuple[int, ...]
    towers: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of all towers' kernels side by side: (rows, columns, channels, kernels) or (inputs, units)."""
        layer = self.layer
        if isinstance(layer, Conv):
            return (layer.kernel, layer.kernel, self.reads[-1] // layer.groups, layer.features)
        return (int(np.prod(self.reads)), layer.features)

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the same as PyTorch has it."""
        *inputs, features = self.kernel
        return (features, inputs[-1], *inputs[:-1])


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Of a network's state dict.

    Examples:
      >>> from alexnet_jax import TWO_TOWER
      >>> shapes(TWO_TOWER)["conv2.weight"], shapes(TWO_TOWER)["fc6.weight"]
      ((256, 48, 5, 5), (4096, 9216))

    Raises:
      UserError: if the network has layers that PyTorch has not.
    """
    return {
        f"{name}.{kind}": shape
        for name, place in _places(network).items()
        for kind, shape in (("weight", place.weight), ("bias", place.weight[:1]))
    }


def to_state_dict(network: Network, params: HostParams) -> dict[str, np.ndarray]:
    """The parameters of a network, stacked along a first axis of towers, as a state dict.

    Raises:
      UserError: if the network has layers that PyTorch has not.
    """
    made: dict[str, np.ndarray] = {}
    for name, place in _places(network).items():
        features = place.layer.features
        kernel = np.concatenate(list(params[name]["kernel"]), axis=-1)[..., :features]
        if isinstance(place.layer, Conv):
            weight = kernel.transpose(3, 2, 0, 1)
        else:
            weight = np.moveaxis(kernel.reshape(*place.reads, features), (-1, -2), (0, 1)).reshape(features, -1)
        made[f"{name}.weight"] = np.ascontiguousarray(weight)
        made[f"{name}.bias"] = np.concatenate(list(params[name]["bias"]))[:features]
    return made


def from_state_dict(network: Network, arrays: StateDict, source: str) -> HostParams:
    """The parameters of a network, stacked along a first axis of towers, float32, from its state dict.

    Args:
      network: what they are for.
      arrays: by name; those of Caffe's fully-connected layers and biases may have axes of one before their own.
      source: where they come from, for errors.

    Raises:
      UserError: if arrays are missing, or too many, or have other shapes.
    """
    places = _places(network)
    check_names(arrays, shapes(network), source)
    params: HostParams = {}
    for name, place in places.items():
        weight = _of_shape(arrays[f"{name}.weight"], place.weight, f"{name}.weight", source)
        bias = _of_shape(arrays[f"{name}.bias"], place.weight[:1], f"{name}.bias", source)
        if isinstance(place.layer, Conv):
            kernel = weight.transpose(2, 3, 1, 0)
        else:
            *rows_and_columns, channels = place.reads
            kernel = np.moveaxis(weight.reshape(-1, channels, *rows_and_columns), (0, 1), (-1, -2)).reshape(place.kernel)
        params[name] = {"kernel": _per_tower(kernel, place.towers), "bias": _per_tower(bias, place.towers)}
    return params


def check_names(found: Mapping[str, object], wanted: Mapping[str, object], source: str) -> None:
    """Refuses what has other names than those wanted.

    Raises:
      UserError: that names them.
    """
    missing, extra = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
    told = []
    if missing:
        told.append(f"misses {_list(missing)}")
    if extra:
        told.append(f"holds what the network has not: {_list(extra)}")
    if told:
        raise UserError(f"{source} {', and '.join(told)}")


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _of_shape(array: np.ndarray, shape: tuple[int, ...], name: str, source: str) -> np.ndarray:
    found = array.shape
    while len(found) > len(shape) and found[0] == 1:
        found = found[1:]
    if found != shape:
        raise UserError(f"{name} of {source} is {_by(array.shape)}, where the network has {_by(shape)}")
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} of {source} is of type {array.dtype}, and no weights")
    return np.asarray(array.reshape(shape), np.float32)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def _per_tower(array: np.ndarray, towers: int) -> np.ndarray:
    """Divides the last axis among towers, which come first then."""
    width = -(-array.shape[-1] // towers)
    missing = width * towers - array.shape[-1]
    filled = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(np.moveaxis(filled.reshape(*array.shape[:-1], towers, width), -2, 0))


def _places(network: Network) -> dict[str, _Place]:
    side, towers = network.input_size, network.towers
    places: dict[str, _Place] = {}
    reads: tuple[int, ...] = (side, side, 3)
    on_pixels = True
    for row in summarize(network):
        layer = network.named_layers[row.name]
        if isinstance(layer, Weighted):
            apart = layer.reads == "own" and towers > 1 and not on_pixels
            if not isinstance(layer, Conv | Dense) or (apart and isinstance(layer, Dense)):
                raise UserError(f"{network.name} has {row.name}, which PyTorch has no layer for")
            places[row.name] = _Place(layer, (*reads[:-1], reads[-1] // towers) if apart else reads, towers)
            on_pixels = False
        reads = row.shape
    return places
