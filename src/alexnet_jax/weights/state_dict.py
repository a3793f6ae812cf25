"""Conversion of parameters to and from PyTorch state dicts.

"conv2.weight" is [kernels, channels, rows, columns], a grouped convolution where towers do not communicate. "fc6.weight" is
[units, inputs], with a feature map flattened in the order channel, row, column. Values are only reordered, so a round trip is
bit-exact.

Padding units of the last layer, which make its width divisible by the number of towers, are dropped, and are zero after a round
trip.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Conv, Dense, WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from alexnet_jax.model.tower import HostParams

StateDict = Mapping[str, np.ndarray]
"""Arrays by name, "LAYER.weight" or "LAYER.bias"."""


class _LayerShapes(NamedTuple):
    """Shapes of a layer with weights.

    Attributes:
      layer: the layer.
      input_shape: shape of its input, (height, width, channels) or (features,).
      towers: number of towers.
    """

    layer: WeightedLayer
    input_shape: tuple[int, ...]
    towers: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the kernel over all towers: (rows, columns, channels, kernels) or (inputs, units)."""
        layer = self.layer
        if isinstance(layer, Conv):
            return (layer.kernel, layer.kernel, self.input_shape[-1] // layer.groups, layer.features)
        return (int(np.prod(self.input_shape)), layer.features)

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weight in PyTorch: (kernels, channels, rows, columns) or (units, inputs)."""
        *inputs, features = self.kernel
        return (features, inputs[-1], *inputs[:-1])


def state_dict_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in a network's state dict, by name.

    Examples:
      >>> from alexnet_jax import TWO_TOWER
      >>> shapes = state_dict_shapes(TWO_TOWER)
      >>> shapes["conv2.weight"], shapes["fc6.weight"]
      ((256, 48, 5, 5), (4096, 9216))

    Raises:
      UserError: if the network has a layer without a PyTorch equivalent.
    """
    return {
        f"{name}.{kind}": shape
        for name, shapes in _layer_shapes(network).items()
        for kind, shape in (("weight", shapes.weight), ("bias", shapes.weight[:1]))
    }


def to_state_dict(network: Network, params: HostParams) -> dict[str, np.ndarray]:
    """Convert parameters to a state dict.

    Raises:
      UserError: if the network has a layer without a PyTorch equivalent.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, shapes in _layer_shapes(network).items():
        features = shapes.layer.features
        kernel = np.concatenate(list(params[name]["kernel"]), axis=-1)[..., :features]
        if isinstance(shapes.layer, Conv):
            weight = kernel.transpose(3, 2, 0, 1)
        else:
            weight = np.moveaxis(kernel.reshape(*shapes.input_shape, features), (-1, -2), (0, 1)).reshape(features, -1)
        arrays[f"{name}.weight"] = np.ascontiguousarray(weight)
        arrays[f"{name}.bias"] = np.concatenate(list(params[name]["bias"]))[:features]
    return arrays


def from_state_dict(network: Network, arrays: StateDict, source: str) -> HostParams:
    """Convert a state dict to parameters.

    Args:
      network: network of the parameters.
      arrays: state dict. Arrays may have additional leading axes of size 1, as in Caffe's fully-connected layers and biases.
      source: file or other origin of the arrays, for error messages.

    Returns:
      Parameters with a leading tower axis, float32.

    Raises:
      UserError: if an array is missing or unexpected, or has the wrong shape or dtype, or the network has a layer without a
        PyTorch equivalent.
    """
    layer_shapes = _layer_shapes(network)
    check_names(arrays, state_dict_shapes(network), source)
    params: HostParams = {}
    for name, shapes in layer_shapes.items():
        weight = _reshape(arrays[f"{name}.weight"], shapes.weight, f"{name}.weight", source)
        bias = _reshape(arrays[f"{name}.bias"], shapes.weight[:1], f"{name}.bias", source)
        if isinstance(shapes.layer, Conv):
            kernel = weight.transpose(2, 3, 1, 0)
        else:
            *spatial, channels = shapes.input_shape
            kernel = np.moveaxis(weight.reshape(-1, channels, *spatial), (0, 1), (-1, -2)).reshape(shapes.kernel)
        params[name] = {"kernel": _split_towers(kernel, shapes.towers), "bias": _split_towers(bias, shapes.towers)}
    return params


def from_kernels(network: Network, layers: Mapping[str, tuple[np.ndarray, np.ndarray]], source: str) -> HostParams:
    """Convert kernels and biases over all towers to parameters.

    Args:
      network: network of the parameters.
      layers: kernel, [rows, columns, channels, kernels] or [inputs, units] with inputs in the order (row, column, channel), and
        bias of each layer.
      source: file or other origin of the arrays, for error messages.

    Returns:
      Parameters with a leading tower axis, float32.

    Raises:
      UserError: as for `from_state_dict`.
    """
    layer_shapes = _layer_shapes(network)
    check_names(layers, layer_shapes, source)
    params: HostParams = {}
    for name, shapes in layer_shapes.items():
        kernel, bias = layers[name]
        kernel = _reshape(kernel, shapes.kernel, f"kernel of {name}", source)
        bias = _reshape(bias, shapes.kernel[-1:], f"bias of {name}", source)
        params[name] = {"kernel": _split_towers(kernel, shapes.towers), "bias": _split_towers(bias, shapes.towers)}
    return params


def check_names(arrays: Mapping[str, object], expected: Mapping[str, object], source: str) -> None:
    """Check that a file's arrays have the names that are the keys of `expected`.

    Raises:
      UserError: if names are missing or unexpected.
    """
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    problems = []
    if missing:
        problems.append(f"missing arrays: {', '.join(missing)}")
    if unexpected:
        problems.append(f"unexpected arrays: {', '.join(unexpected)}")
    if problems:
        raise UserError(f"{source} does not match the network: {'; '.join(problems)}")


def _reshape(array: np.ndarray, shape: tuple[int, ...], name: str, source: str) -> np.ndarray:
    squeezed = array.shape
    while len(squeezed) > len(shape) and squeezed[0] == 1:
        squeezed = squeezed[1:]
    if squeezed != shape:
        raise UserError(f"{name} in {source} has shape {_format_shape(array.shape)}, expected {_format_shape(shape)}")
    if not jnp.issubdtype(array.dtype, jnp.floating):  # JAX's dtypes include bfloat16
        raise UserError(f"{name} in {source} has dtype {array.dtype}, expected floating point")
    with np.errstate(over="ignore"):  # reported as not finite
        values = np.asarray(array.reshape(shape), np.float32)
    check_finite(values, name, source)
    return values


def check_finite(values: np.ndarray, name: str, source: str | Path) -> None:
    """Check that all values of an array are finite.

    Raises:
      UserError: if a value is infinite or NaN.
    """
    if not (finite := np.isfinite(values)).all():
        count = values.size - int(finite.sum())
        raise UserError(f"{name} in {source} has {count:,} values that are infinite or NaN: use weights of an earlier step")


def _format_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"


def _split_towers(array: np.ndarray, towers: int) -> np.ndarray:
    """Split the last axis, zero-padded to a multiple of `towers`, into a leading tower axis."""
    width = -(-array.shape[-1] // towers)
    padding = width * towers - array.shape[-1]
    padded = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, padding)])
    return np.ascontiguousarray(np.moveaxis(padded.reshape(*array.shape[:-1], towers, width), -2, 0))


def _layer_shapes(network: Network) -> dict[str, _LayerShapes]:
    side, towers = network.input_size, network.towers
    shapes: dict[str, _LayerShapes] = {}
    input_shape: tuple[int, ...] = (side, side, 3)
    reads_pixels = True
    for row in summarize(network):
        layer = network.named_layers[row.name]
        if isinstance(layer, WeightedLayer):
            # Pixels are shared by all towers; later layers with reads="own" see the channels of their tower only.
            own_channels = layer.reads == "own" and towers > 1 and not reads_pixels
            if not isinstance(layer, Conv | Dense) or (own_channels and isinstance(layer, Dense)):
                raise UserError(f"{network.name} cannot be converted: PyTorch has no equivalent of its layer {row.name}")
            tower_shape = (*input_shape[:-1], input_shape[-1] // towers) if own_channels else input_shape
            shapes[row.name] = _LayerShapes(layer, tower_shape, towers)
            reads_pixels = False
        input_shape = row.shape
    return shapes
