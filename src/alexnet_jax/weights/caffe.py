"""Caffe's weights and mean images. Nothing that is read can run anything: no pickle.

NAME.caffemodel    a NetParameter of caffe.proto, with layers of its first or its present form
NAME.npz, folder   arrays conv1_w and conv1_b, …; in a folder, conv1_w.npy, …
NAME.h5            what Caffe writes as HDF5: data/conv1/0 and data/conv1/1, …; needs h5py

Caffe reads blue, green and red. Here the channels of the first kernels, and of the mean image, are turned around instead.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from alexnet_jax.errors import UserError
from alexnet_jax.model.tower import HostParams
from alexnet_jax.weights.protobuf import fields, numbers, varints

IMAGENET_MEAN = (123.0, 117.0, 104.0)
"""Red, green and blue: what Caffe's own examples subtract where they subtract one number for each color."""

# Numbers of fields in caffe.proto.
_LAYERS_V1, _LAYERS = 2, 100  # of NetParameter
_NAME_V1, _BLOBS_V1 = 4, 6  # of V1LayerParameter
_NAME, _BLOBS = 1, 7  # of LayerParameter
_LEGACY_SHAPE = (1, 2, 3, 4)  # of BlobProto: num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1  # of BlobShape


def with_red_first(params: HostParams) -> HostParams:
    """The same parameters for pixels whose colors come in the opposite order."""
    first, *_ = params
    kernel = np.ascontiguousarray(params[first]["kernel"][..., ::-1, :])
    return {**params, first: {**params[first], "kernel": kernel}}


def caffe_blobs(path: Path) -> dict[str, np.ndarray]:
    """Weights and biases of each layer as Caffe has them, by PyTorch's names: "conv1.weight" and "conv1.bias".

    Raises:
      UserError: if they cannot be read.
    """
    readers: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
        ".caffemodel": _caffemodel, ".npz": _arrays, ".h5": _hdf5, ".hdf5": _hdf5, ".npy": _pickled,
    }  # fmt: skip
    read = _folder if path.is_dir() else readers.get(path.name[path.name.rfind(".") :])
    if read is None:
        raise UserError(f"{path} is none of {', '.join(readers)} or a folder of .npy files")
    try:
        return read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            trusted = "where you trust it, read it with NumPy and save its arrays with np.savez"
            raise UserError(f"{path} is a pickle, which could run any program: {trusted}") from error
        raise UserError(f"{path} cannot be read: {error}") from error


def read_mean_image(path: Path) -> Float[np.ndarray, "size size 3"]:
    """A mean image, gray levels: .binaryproto or .npy as Caffe has it, or the mean_image.npy of a run.

    Raises:
      UserError: if it cannot be read, or is no square of three colors.
    """
    try:
        mean = _blob(memoryview(path.read_bytes())) if path.suffix == ".binaryproto" else np.load(path, allow_pickle=False)
        if mean.ndim == 4:
            mean = mean[0]
        if mean.ndim == 3 and len(mean) == 3:
            mean = mean[::-1].transpose(1, 2, 0)
        if mean.shape != (len(mean), len(mean), 3):
            raise ValueError(f"{mean.shape} is no square image")
        return np.ascontiguousarray(mean, np.float32)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise UserError(f"the mean image {path} cannot be read: {error}") from error


def _caffemodel(path: Path) -> dict[str, np.ndarray]:
    blobs: dict[str, np.ndarray] = {}
    for number, layer in fields(memoryview(path.read_bytes())):
        if number in (_LAYERS_V1, _LAYERS) and isinstance(layer, memoryview):
            name_field, blobs_field = (_NAME_V1, _BLOBS_V1) if number == _LAYERS_V1 else (_NAME, _BLOBS)
            name, found = "", []
            for inner, value in fields(layer):
                if inner == name_field and isinstance(value, memoryview):
                    name = bytes(value).decode()
                elif inner == blobs_field and isinstance(value, memoryview):
                    found.append(_blob(value))
            blobs.update(_named(name, dict(enumerate(found))))
    if not blobs:
        raise ValueError("it holds no weights")
    return blobs


def _blob(message: memoryview) -> np.ndarray:
    """A BlobProto."""
    shape, legacy = None, [1, 1, 1, 1]
    floats: list[memoryview] = []
    doubles: list[memoryview] = []
    for number, value in fields(message):
        if number == _SHAPE and isinstance(value, memoryview):
            shape = [side for inner, dim in fields(value) if inner == _DIM for side in varints(dim)]
        elif number in _LEGACY_SHAPE and isinstance(value, int):
            legacy[_LEGACY_SHAPE.index(number)] = value
        elif number in (_DATA, _DOUBLE_DATA) and isinstance(value, memoryview):
            (floats if number == _DATA else doubles).append(value)
    data = numbers(doubles, "<f8") if doubles else numbers(floats, "<f4")
    return data.reshape(legacy if shape is None else shape)


def _named(layer: str, blobs: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    kinds = {0: "weight", 1: "bias"}
    return {f"{layer}.{kinds.get(number, number)}": blob for number, blob in blobs.items()}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {_of_file(name): arrays[name] for name in arrays.files}


def _folder(path: Path) -> dict[str, np.ndarray]:
    files = sorted(path.glob("*.npy"))
    if not files:
        raise ValueError("there are no .npy files in it")
    return {_of_file(file.stem): np.load(file, allow_pickle=False) for file in files}


def _pickled(path: Path) -> dict[str, np.ndarray]:
    np.load(path, allow_pickle=False)  # raises, if it is one
    raise ValueError("it is one array; give a .npz, or a folder of conv1_w.npy, conv1_b.npy, …")


def _of_file(name: str) -> str:
    return f"{name[:-2]}.{'weight' if name.endswith('_w') else 'bias'}" if name.endswith(("_w", "_b")) else name


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} needs h5py: pip install h5py") from error
    with h5py.File(path, "r") as file:
        data: Any = file["data"]
        blobs: dict[str, np.ndarray] = {}
        for layer, group in data.items():
            blobs.update(_named(layer, {int(number): np.asarray(blob) for number, blob in group.items()}))
        return blobs
