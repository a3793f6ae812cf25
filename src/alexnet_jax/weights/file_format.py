"""Formats of weight files, recognized by their content, since names such as checkpoint.pth.tar say little."""

import zipfile
from pathlib import Path
from typing import Literal

from alexnet_jax.errors import UserError

Format = Literal["safetensors", "torch", "sharded", "npz", "npy", "pickle", "hdf5", "caffemodel", "npy folder"]
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of a PyTorch file before version 1.6: its magic number, as a pickle."""
INDEX = ".index.json"
"""End of the name of the file that lists the files of a sharded state dict."""
_EXPECTED = (
    ".safetensors, .pt, .pth or .bin with a PyTorch state dict, .caffemodel, .npz, .h5 or .npy with Caffe's layers, or a folder "
    "of .npy files or of shards"
)


def weights_format(path: Path) -> Format:
    """Return the format of a weight file or folder.

    Raises:
      UserError: if the path does not exist, or has none of the supported formats.
    """
    if not (path.is_file() or path.is_dir()):  # opening a named pipe would wait forever
        raise UserError(f"{path} {'is no regular file' if path.exists() else 'does not exist'}: pass {_EXPECTED}")
    if path.is_dir():
        return _folder_format(path)
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise UserError(f"{path} is empty: download it again")
    if path.name.endswith(INDEX):
        return "sharded"
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(path)
    formats: dict[bytes, Format] = {b"\x89HDF\r\n\x1a\n": "hdf5", b"\x93NUMPY": "npy", LEGACY_TORCH: "torch"}
    for start, name in formats.items():
        if head.startswith(start):
            return name
    if path.suffix == ".caffemodel" and head[:1] != b"<":
        return "caffemodel"
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors"
    if head[:1] == b"\x80" and head[1] <= 5:
        return "pickle"
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{path} is a web page and not a weight file: download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS and not the file itself: run git lfs pull")
    raise UserError(f"{path} is not a supported file, or damaged: pass {_EXPECTED}")


def _folder_format(path: Path) -> Format:
    names = sorted(file.name for file in path.iterdir())
    if any(name.endswith(INDEX) for name in names):
        return "sharded"
    if any(name.endswith(".npy") for name in names):
        return "npy folder"
    for name in names:
        if name.endswith((".safetensors", ".pth", ".pt", ".bin", ".caffemodel")):
            raise UserError(f"{path} is a folder: pass its file {path / name}")
    raise UserError(f"{path} contains no .npy files and no *{INDEX}: pass {_EXPECTED}")


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"cannot read {path}: {error}; download it again") from error
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    raise UserError(f"{path} is a zip archive of other files: unpack it, and pass {_EXPECTED}")
