"""Readers for Caffe weights.

NAME.caffemodel    NetParameter of caffe.proto, with layers in the V1 or the current format
NAME.npz, folder   arrays conv1_w, conv1_b, …; in a folder, files conv1_w.npy, conv1_b.npy, …
NAME.h5            HDF5 as written by Caffe: data/conv1/0, data/conv1/1, …; requires h5py
NAME.npy           dictionary of kernel and bias of each layer, such as bvlc_alexnet.npy, converted from Caffe for TensorFlow

Caffe networks read BGR images. `swap_bgr_rgb` reverses the input channels of the first layer, so that the converted network reads
RGB images.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.npy_file import read_array
from alexnet_jax.errors import UserError, one_line
from alexnet_jax.model.tower import HostParams
from alexnet_jax.pickles import PickleError, load_arrays
from alexnet_jax.weights.caffe_layers import CaffeNet, parse_caffe_net
from alexnet_jax.weights.file_format import Format

MAX_COMPRESSION = 8
"""Maximum ratio of the size of the arrays to that of their file; trained weights cannot be compressed to half."""


def swap_bgr_rgb(params: HostParams) -> HostParams:
    """Reverse the input channels of the first layer, to convert parameters from BGR to RGB images or back."""
    first, *_ = params
    kernel = np.ascontiguousarray(params[first]["kernel"][..., ::-1, :])
    return {**params, first: {**params[first], "kernel": kernel}}


def read_caffe_weights(path: Path, file_format: Format) -> tuple[dict[str, np.ndarray], CaffeNet]:
    """Read the weights and biases of all layers.

    Args:
      path: .caffemodel, .npz or .h5 file, or a folder of .npy files.
      file_format: "caffemodel", "npz", "hdf5" or "npy folder".

    Returns:
      Arrays by their names in PyTorch, such as "conv1.weight" and "conv1.bias"; and what the file says of its network, which is
      nothing except for a .caffemodel.

    Raises:
      UserError: if the file is damaged or contains a pickle.
    """
    readers: dict[Format, Callable[[Path], dict[str, np.ndarray]]] = {
        "npz": _read_npz, "hdf5": _read_hdf5, "npy folder": _read_folder,
    }  # fmt: skip
    try:
        if file_format in readers:
            return readers[file_format](path), CaffeNet()
        net, weights = parse_caffe_net(memoryview(path.read_bytes())), dict[str, np.ndarray]()
        for layer in net.layers:
            weights |= _name_blobs(layer.name, dict(enumerate(layer.blobs)))
        if not weights:
            raise ValueError("the file contains no weights")
        return weights, net
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and h5py raise exceptions of many types on damaged files
        reason = one_line(error, 150)
        if "allow_pickle" in reason:
            reason = "it contains a pickle"
        raise UserError(f"cannot read {path}: {reason}; download it again") from error


def read_kernels(path: Path, file_format: Format) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read kernels and biases from a dictionary of layers in a .npy file or pickle, such as the well-known bvlc_alexnet.npy.

    Only arrays, lists and dictionaries are read from the pickle, and no code of it is run.

    Args:
      path: .npy file of an object array, or a pickle.
      file_format: "npy" or "pickle".

    Returns:
      Kernel, [rows, columns, channels, kernels] or [inputs, units], and bias of each layer.

    Raises:
      UserError: if the file is damaged, or contains anything but a dictionary of layers.
    """
    data = path.read_bytes()
    try:
        if file_format == "npy":
            file = io.BytesIO(data)
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read_header(file)
            if dtype.kind != "O":
                raise UserError(f"{path} is a single array: pass a .npz file, or the folder of conv1_w.npy, conv1_b.npy, …")
            data = data[file.tell() :]
        layers = {_text(name): _kernel_and_bias(layer) for name, layer in load_arrays(data).items()}
    except UserError:
        raise
    except PickleError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except Exception as error:  # NumPy raises exceptions of many types on a damaged header
        raise UserError(f"cannot read {path}: it is not a dictionary of a kernel and a bias for each layer") from error
    return layers


def _kernel_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(layer, dict):
        layer = {_text(name): array for name, array in layer.items()}
        layer = [layer["weights"], layer["biases"]]
    kernel, bias = layer
    if not isinstance(kernel, np.ndarray) or not isinstance(bias, np.ndarray):
        raise ValueError("no arrays")
    return kernel, bias


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _name_blobs(layer: str, blobs: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    kinds = {0: "weight", 1: "bias"}
    return {f"{layer}.{kinds.get(number, number)}": blob for number, blob in blobs.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        _check_size(path, sum(info.file_size for info in arrays.zip.infolist()))
        return {_pytorch_name(name): arrays[name] for name in arrays.files}


def _check_size(path: Path, size: int) -> None:
    if size > MAX_COMPRESSION * path.stat().st_size + (1 << 20):
        raise ValueError(f"its arrays would take {size:,} bytes, more than {MAX_COMPRESSION} times the size of the file")


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    files = sorted(path.glob("*.npy"))
    if not files:
        raise ValueError("the folder contains no .npy files")
    return {_pytorch_name(file.stem): read_array(file, "download it again") for file in files}


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
        _check_size(path, sum(blob.nbytes for group in data.values() for blob in group.values()))
        for layer, group in data.items():
            weights.update(_name_blobs(layer, {int(number): np.asarray(blob) for number, blob in group.items()}))
        return weights
