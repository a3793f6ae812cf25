"""Layers that a .caffemodel describes, and their comparison with a `Network`.

Weights fit any network with the same shapes, but its outputs are wrong if the order of the layers or a constant differs: CaffeNet
and bvlc_alexnet have the same shapes. A file written by Caffe describes every layer; a description may also be absent.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Conv, Dense, Layer, LocalResponseNorm, MaxPool, WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.protobuf import parse_fields, parse_varints

# Field numbers in caffe.proto.
_NET_NAME, _LAYERS_V1, _LAYERS = 1, 2, 100  # of NetParameter
_LEGACY_SHAPE = (1, 2, 3, 4)  # of BlobProto: num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8  # of BlobProto
_DIM = 1  # of BlobShape
_KINDS_V1 = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 5: "Data", 12: "ImageData", 18: "ReLU"}
_PARAMS_V1 = {"Convolution": 10, "LRN": 18, "Pooling": 19, "Data": 36, "ImageData": 36}
_PARAMS = {"Convolution": 106, "LRN": 118, "Pooling": 121, "Data": 100, "ImageData": 100}
_INTEGERS = {
    "Convolution": {3: "padding", 4: "kernel", 5: "groups", 6: "stride", 18: "dilation"},
    "Pooling": {1: "method", 2: "size", 3: "stride", 4: "padding"},
    "LRN": {1: "size", 4: "region"},
    "Data": {3: "crop"},
    "ImageData": {3: "crop"},
}
_FLOATS = {"LRN": {2: "alpha", 3: "beta", 5: "k"}, "Data": {1: "scale"}, "ImageData": {1: "scale"}}
_DEFAULTS: dict[str, dict[str, float]] = {
    "Convolution": {"padding": 0, "stride": 1, "dilation": 1, "groups": 1},
    "Pooling": {"method": 0, "stride": 1, "padding": 0},
    "LRN": {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0, "region": 0},
}
_NAMES = {"CaffeNet": "caffenet", "AlexNet": "bvlc_alexnet"}
"""Networks of this project by the names in Caffe's published files."""


@dataclass
class CaffeLayer:
    """Layer of a .caffemodel.

    Attributes:
      name: name of the layer.
      kind: Caffe's type, such as "Convolution".
      numbers: hyperparameters that the file states or that Caffe's defaults imply; empty if the file has none for the layer.
      blobs: weight and bias.
    """

    name: str = ""
    kind: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    blobs: list[np.ndarray] = field(default_factory=list)


@dataclass
class CaffeNet:
    """Name and layers of a .caffemodel, in the order of the file, which is that of the computation."""

    name: str = ""
    layers: list[CaffeLayer] = field(default_factory=list)


def parse_caffe_net(message: memoryview) -> CaffeNet:
    """Parse the description and the weights of a network.

    Raises:
      ValueError: if the message is damaged.
    """
    net = CaffeNet()
    for number, value in parse_fields(message):
        if number == _NET_NAME and isinstance(value, memoryview):
            net.name = bytes(value).decode("utf-8", "backslashreplace")
        elif number in (_LAYERS_V1, _LAYERS) and isinstance(value, memoryview):
            net.layers.append(_parse_layer(value, number == _LAYERS_V1))
    return net


def _parse_layer(message: memoryview, v1: bool) -> CaffeLayer:
    layer, (name_field, blobs_field) = CaffeLayer(), (4, 6) if v1 else (1, 7)
    messages: dict[int, memoryview] = {}
    for number, value in parse_fields(message):
        if number == name_field and isinstance(value, memoryview):
            layer.name = bytes(value).decode("utf-8", "backslashreplace")
        elif number == blobs_field and isinstance(value, memoryview):
            layer.blobs.append(parse_blob(value))
        elif v1 and number == 5 and isinstance(value, int):
            layer.kind = _KINDS_V1.get(value, "")
        elif not v1 and number == 2 and isinstance(value, memoryview):
            layer.kind = bytes(value).decode("utf-8", "backslashreplace")
        elif isinstance(value, memoryview):
            messages[number] = value
    params = messages.get((_PARAMS_V1 if v1 else _PARAMS).get(layer.kind, 0))
    if params is not None:
        layer.numbers = {**_DEFAULTS.get(layer.kind, {}), **dict(_numbers(layer.kind, params))}
    return layer


def parse_blob(message: memoryview) -> np.ndarray:
    """Parse a BlobProto message of Caffe into an array.

    Raises:
      ValueError: if the message is damaged, or its values do not match its shape.
    """
    shape, legacy_shape = None, [1, 1, 1, 1]
    floats: list[memoryview] = []
    doubles: list[memoryview] = []
    for number, value in parse_fields(message):
        if number == _SHAPE and isinstance(value, memoryview):
            shape = [size for shape_field, dim in parse_fields(value) if shape_field == _DIM for size in parse_varints(dim)]
        elif number in _LEGACY_SHAPE and isinstance(value, int):
            legacy_shape[_LEGACY_SHAPE.index(number)] = value
        elif number in (_DATA, _DOUBLE_DATA) and isinstance(value, memoryview):
            (floats if number == _DATA else doubles).append(value)
    values, dtype = (doubles, "<f8") if doubles else (floats, "<f4")  # packed or not
    data = np.frombuffer(values[0] if len(values) == 1 else b"".join(values), dtype)
    return data.reshape(legacy_shape if shape is None else shape)


def _numbers(kind: str, params: memoryview) -> Iterator[tuple[str, float]]:
    integers, floats = _INTEGERS.get(kind, {}), _FLOATS.get(kind, {})
    for number, value in parse_fields(params):
        if number in integers:
            for each in parse_varints(value):
                yield integers[number], each
        elif number in floats and isinstance(value, memoryview) and len(value) == 4:
            yield floats[number], struct.unpack("<f", value)[0]


def check_network(net: CaffeNet, network: Network, file: str) -> None:
    """Check that the description in a file, as far as there is one, is that of a network.

    Raises:
      UserError: naming the first difference.
    """
    advice = "pass the --network that the weights were trained with"
    if _NAMES.get(net.name, network.name) != network.name and network.name in _NAMES.values():
        raise UserError(f"{file} is {net.name}: pass --network {_NAMES[net.name]}")
    ours = [(name, layer) for name, layer in network.named_layers.items() if isinstance(layer, _COMPARED)]
    theirs = [layer for layer in net.layers if layer.kind in ("Convolution", "InnerProduct", "LRN", "Pooling")]
    if not any(layer.kind in ("LRN", "Pooling") for layer in theirs):
        ours = [
            (name, layer) for name, layer in ours if isinstance(layer, WeightedLayer)
        ]  # the file has layers with weights only
    if not theirs:
        return
    described = [_describe(layer) for layer in theirs]
    expected = [_expected(name, layer) for name, layer in ours]
    for index, (seen, kind) in enumerate(zip(described, expected, strict=False)):
        if seen.split()[0] != kind.split()[0]:
            before = f" after {described[index - 1].split()[-1]}" if index else ""
            raise UserError(f"{file} has {seen}{before}, where {network.name} has {kind}: {advice}")
    if len(described) != len(expected):
        raise UserError(f"{file} has {len(described)} layers, but {network.name} has {len(expected)}: {advice}")
    for (name, layer), other in zip(ours, theirs, strict=True):
        for key, value in _hyperparameters(layer, network).items():
            if key in other.numbers and abs(other.numbers[key] - value) > 1e-5 * abs(value):
                difference = f"{key} {other.numbers[key]:g} in {other.name}, but {network.name} has {value:g} in {name}"
                raise UserError(f"{file} has {difference}: {advice}")
    for layer in net.layers:
        crop, scale = layer.numbers.get("crop", network.input_size), layer.numbers.get("scale", 1.0)
        if layer.kind in ("Data", "ImageData") and crop not in (0, network.input_size):
            raise UserError(f"{file} reads crops of {crop:g} pixels, but {network.name} of {network.input_size}: {advice}")
        if layer.kind in ("Data", "ImageData") and scale != 1:
            raise UserError(f"{file} multiplies pixels by {scale:g}, which no network here does: it cannot be imported")


_COMPARED = (Conv, Dense, LocalResponseNorm, MaxPool)


def _describe(layer: CaffeLayer) -> str:
    # Fully connected layers may be described as convolutions of the whole map, so both are one kind.
    return f"{ {'LRN': 'normalization', 'Pooling': 'pooling'}.get(layer.kind, 'weights') } {layer.name or layer.kind}"


def _expected(name: str, layer: Layer) -> str:
    kind = {LocalResponseNorm: "normalization", MaxPool: "pooling"}.get(type(layer), "weights")
    return f"{kind} {name}"


def _hyperparameters(layer: Any, network: Network) -> dict[str, float]:
    """Return the values that Caffe's description must have."""
    if isinstance(layer, Conv):
        before, after = layer.padding
        padding = before if before == after else -1  # Caffe pads both sides equally
        return {"kernel": layer.kernel, "stride": layer.stride, "padding": padding, "dilation": 1}
    if isinstance(layer, LocalResponseNorm):
        alpha = layer.alpha * layer.size  # Caffe divides alpha by the size
        return {"size": layer.size, "alpha": alpha, "beta": layer.beta, "k": layer.k, "region": 0}
    if isinstance(layer, MaxPool):
        return {"size": layer.size, "stride": layer.stride, "padding": 0, "method": 0}
    return {}
