"""Readers for Caffe weights and mean images.

NAME.caffemodel    NetParameter of caffe.proto, with layers in the V1 or the current format
NAME.npz, folder   arrays conv1_w, conv1_b, …; in a folder, files conv1_w.npy, conv1_b.npy, …
NAME.h5            HDF5 as written by Caffe: data/conv1/0, data/conv1/1, …; requires h5py

Pickled files are rejected because loading a pickle can run arbitrary code.

Caffe networks read BGR images. `swap_bgr_rgb` reverses the input channels of the first layer, and `read_mean_image` reverses the
channels of a mean image from Caffe, so that the converted network reads RGB images.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from alexnet_jax.errors import UserError
from alexnet_jax.model.tower import HostParams
from alexnet_jax.weights.protobuf import parse_fields, parse_floats, parse_varints

IMAGENET_MEAN = (123.0, 117.0, 104.0)
"""Per-channel mean (red, green, blue; 0 to 255) that Caffe's examples subtract instead of a mean image."""

# Field numbers in caffe.proto.
_LAYERS_V1, _LAYERS = 2, 100  # of NetParameter
_NAME_V1, _BLOBS_V1 = 4, 6  # of V1LayerParameter
_NAME, _BLOBS = 1, 7  # of LayerParameter
_LEGACY_SHAPE = (1, 2, 3, 4)  # of BlobProto: num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1  # of BlobShape


def swap_bgr_rgb(params: HostParams) -> HostParams:
    """Reverse the input channels of the first layer, to convert parameters from BGR to RGB images or back."""
    first, *_ = params
    kernel = np.ascontiguousarray(params[first]["kernel"][..., ::-1, :])
    return {**params, first: {**params[first], "kernel": kernel}}


def read_caffe_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the weights and biases of all layers.

    Args:
      path: .caffemodel, .npz or .h5 file, or a folder of .npy files.

    Returns:
      Arrays by their names in PyTorch, such as "conv1.weight" and "conv1.bias".

    Raises:
      UserError: if the file has an unsupported format, is damaged or is a pickle.
    """
    readers: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
        ".caffemodel": _read_caffemodel, ".npz": _read_npz, ".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npy": _reject_npy,
    }  # fmt: skip
    read = _read_folder if path.is_dir() else readers.get(path.name[path.name.rfind(".") :])
    if read is None:
        suffixes = ", ".join(suffix for suffix in readers if suffix != ".npy")
        raise UserError(f"{path} is not a supported file: pass one of {suffixes}, or a folder of .npy files")
    try:
        return read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            advice = "if you trust the file, load it with allow_pickle=True and save its arrays with np.savez"
            raise UserError(f"{path} is a pickle, which can run arbitrary code: {advice}") from error
        raise UserError(f"cannot read {path}: {error}") from error


def read_mean_image(path: Path) -> Float[np.ndarray, "size size 3"]:
    """Read a mean image as RGB, with values from 0 to 255.

    Args:
      path: .binaryproto or .npy file from Caffe, or the mean_image.npy of a run.

    Raises:
      UserError: if the file cannot be read, or is not a square image with three channels.
    """
    try:
        mean = _parse_blob(memoryview(path.read_bytes())) if path.suffix == ".binaryproto" else np.load(path, allow_pickle=False)
        if mean.ndim == 4:
            mean = mean[0]
        if mean.ndim == 3 and len(mean) == 3:
            mean = mean[::-1].transpose(1, 2, 0)
        if mean.shape != (len(mean), len(mean), 3):
            raise ValueError(f"shape {mean.shape}, expected (size, size, 3) or (3, size, size)")
        return np.ascontiguousarray(mean, np.float32)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise UserError(f"cannot read the mean image {path}: {error}") from error


def _read_caffemodel(path: Path) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for number, layer in parse_fields(memoryview(path.read_bytes())):
        if number in (_LAYERS_V1, _LAYERS) and isinstance(layer, memoryview):
            name_field, blobs_field = (_NAME_V1, _BLOBS_V1) if number == _LAYERS_V1 else (_NAME, _BLOBS)
            name, blobs = "", []
            for layer_field, value in parse_fields(layer):
                if layer_field == name_field and isinstance(value, memoryview):
                    name = bytes(value).decode()
                elif layer_field == blobs_field and isinstance(value, memoryview):
                    blobs.append(_parse_blob(value))
            weights.update(_name_blobs(name, dict(enumerate(blobs))))
    if not weights:
        raise ValueError("the file contains no weights")
    return weights


def _parse_blob(message: memoryview) -> np.ndarray:
    """Parse a BlobProto message into an array."""
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
    data = parse_floats(doubles, "<f8") if doubles else parse_floats(floats, "<f4")
    return data.reshape(legacy_shape if shape is None else shape)


def _name_blobs(layer: str, blobs: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    kinds = {0: "weight", 1: "bias"}
    return {f"{layer}.{kinds.get(number, number)}": blob for number, blob in blobs.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {_pytorch_name(name): arrays[name] for name in arrays.files}


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    files = sorted(path.glob("*.npy"))
    if not files:
        raise ValueError("the folder contains no .npy files")
    return {_pytorch_name(file.stem): np.load(file, allow_pickle=False) for file in files}


def _reject_npy(path: Path) -> dict[str, np.ndarray]:
    np.load(path, allow_pickle=False)  # raises ValueError for a pickle
    raise ValueError("a .npy file holds a single array; pass a .npz file, or a folder of conv1_w.npy, conv1_b.npy, …")


def _pytorch_name(name: str) -> str:
    return f"{name[:-2]}.{'weight' if name.endswith('_w') else 'bias'}" if name.endswith(("_w", "_b")) else name


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise UserError(f"reading {path} needs h5py: pip install h5py") from error
    with h5py.File(path, "r") as file:
        data: Any = file["data"]
        weights: dict[str, np.ndarray] = {}
        for layer, group in data.items():
            weights.update(_name_blobs(layer, {int(number): np.asarray(blob) for number, blob in group.items()}))
        return weights
