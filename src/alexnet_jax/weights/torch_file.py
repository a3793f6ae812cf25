"""Reader of the files of `torch.save`, without PyTorch and without running code of the file.

A file is a zip archive with the pickle data.pkl and the bytes of each tensor, or, before PyTorch 1.6, a sequence of pickles and
bytes. Objects other than tensors, numbers, text, lists and dictionaries, such as an optimizer or command line arguments, are
ignored.
"""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from alexnet_jax.errors import UserError, one_line
from alexnet_jax.pickles import PickleError, load_arrays
from alexnet_jax.weights.file_format import LEGACY_TORCH

_DTYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": jnp.bfloat16, "Long": "<i8", "Int": "<i4", "Short": "<i2",
    "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
_STATE_DICT_KEYS = "state_dict, model_state_dict or model"


@dataclass
class _Storage:
    """Values of tensors, read when they are needed."""

    dtype: np.dtype
    numel: int
    read: Callable[[], bytes]


@dataclass
class Tensor:
    """Tensor of a file: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Read the values.

        Raises:
          ValueError: if the tensor exceeds its storage.
        """
        storage, size = self.storage, int(np.prod(self.shape, dtype=object))
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("a tensor has an invalid shape")
        last = self.offset + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        data = storage.read()
        if size > storage.numel or (size and last >= storage.numel) or len(data) != storage.numel * storage.dtype.itemsize:
            raise ValueError("a tensor is larger than its data")
        values = np.frombuffer(data, storage.dtype)[self.offset :]
        strides = tuple(stride * storage.dtype.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values, self.shape, strides) if size else np.zeros(self.shape, storage.dtype)


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a file: the file's only object, or a value of its dictionary.

    Returns:
      Arrays by name, as in the file.

    Raises:
      UserError: if the file is damaged, or does not contain exactly one state dict.
    """
    with open(path, "rb") as file:
        is_legacy = file.read(len(LEGACY_TORCH)) == LEGACY_TORCH
    try:
        loaded = _load_legacy(path) if is_legacy else _load_zip(path)
        return {name: tensor.array() for name, tensor in _find_state_dict(loaded, path).items()}
    except (PickleError, zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, NotImplementedError, EOFError) as error:
        raise UserError(f"cannot read {path}: {one_line(error, 200)}; download it again") from error


def _find_state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict of a loaded object: the object itself, or the only state dict among its values."""
    if tensors := _as_state_dict(loaded):
        return tensors
    if not isinstance(loaded, dict):
        raise UserError(f"{path} is not a state dict: save one with torch.save(module.state_dict(), PATH)")
    found = {str(key): tensors for key, value in loaded.items() if (tensors := _as_state_dict(value))}
    if len(found) == 1:
        return next(iter(found.values()))
    keys = ", ".join(str(_text(key)) for key in (found or loaded))
    if found:
        raise UserError(f"{path} contains several state dicts ({keys}): save the one to import with torch.save")
    raise UserError(
        f"{path} is not a state dict, and contains none under {_STATE_DICT_KEYS}, only {keys[:500]}: "
        "save one with torch.save(module.state_dict(), PATH)"
    )


def _as_state_dict(value: Any) -> dict[str, Tensor] | None:
    """Return the value as a state dict, or None if it is not a dictionary of tensors by name."""
    if not isinstance(value, dict) or not value:
        return None
    named = {_text(key): tensor for key, tensor in value.items()}
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in named.items()):
        return None
    return named


def _text(key: Any) -> Any:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key  # written by Python 2


def _functions() -> dict[tuple[str, str], Callable[..., Any]]:
    def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        if not isinstance(storage, _Storage):
            raise PickleError
        return Tensor(storage, offset, tuple(shape), tuple(strides))

    def same(value: Any, *_: Any) -> Any:
        return value

    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor"): tensor,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): same,
        ("torch._utils", "_rebuild_parameter_with_state"): same,
    }
    for name, dtype in _DTYPES.items():
        functions["torch", f"{name}Storage"] = _StorageType(np.dtype(dtype))
    return functions


@dataclass
class _StorageType:
    dtype: np.dtype

    def __call__(self, *_: Any) -> None:
        raise PickleError


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickle_name = next(name for name in members if name.endswith("data.pkl"))
        prefix = pickle_name.removesuffix("data.pkl")
        for member in members.values():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its archive is compressed, which PyTorch does not do")

        def read(name: str) -> bytes:
            with zipfile.ZipFile(path) as opened:
                return opened.read(name)

        def storage(pid: Any) -> _Storage:
            kind, storage_type, key, _, numel = pid
            if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(numel, int):
                raise PickleError
            name = f"{prefix}data/{key}"
            if members[name].file_size != numel * storage_type.dtype.itemsize:
                raise ValueError("a tensor is larger than its data")
            return _Storage(storage_type.dtype, numel, lambda: read(name))

        if f"{prefix}byteorder" in members and archive.read(f"{prefix}byteorder") != b"little":
            raise ValueError("its byte order is not little-endian")
        return load_arrays(archive.read(pickle_name), functions=_functions(), persistent_load=storage, ignore_unknown=True)


def _load_legacy(path: Path) -> Any:
    file = io.BytesIO(path.read_bytes())
    storages: dict[Any, _Storage] = {}

    def storage(pid: Any) -> _Storage:
        kind, storage_type, key, _, numel, view = pid
        if _text(kind) != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise PickleError
        return storages.setdefault(key, _Storage(storage_type.dtype, numel, lambda: b""))

    for _ in range(3):  # magic number, version of the format, description of the computer
        load_arrays(file)
    loaded = load_arrays(file, functions=_functions(), persistent_load=storage, ignore_unknown=True)
    for key in load_arrays(file):
        numel, itemsize = int.from_bytes(file.read(8), "little"), storages[key].dtype.itemsize
        content = file.read(numel * itemsize)
        if numel != storages[key].numel or len(content) != numel * itemsize:
            raise ValueError("the file is truncated")
        storages[key].read = lambda content=content: content
    return loaded
