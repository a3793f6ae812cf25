"""CIFAR-10 and CIFAR-100 from the archives of https://www.cs.toronto.edu/~kriz/cifar.html: binary or python, packed or not.

The images are 32x32 pixels and stay so, and are kept as pixels: at that size JPEG would show.
"""

import hashlib
import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from alexnet_jax.data.sources.base import Picture, Source
from alexnet_jax.errors import UserError

SIDE = 32
PIXELS = SIDE * SIDE * 3
LARGEST = 256 << 20  # bytes: more than any of the files has


@dataclass(frozen=True)
class Layout:
    """One of the archives: its name, its folder, and the files in it that matter."""

    archive: str
    folder: str
    names: str
    splits: dict[str, list[str]]
    labels: str = "labels"  # key of a pickle
    label_bytes: int = 1  # before each binary image; the last is the label

    @property
    def binary(self) -> bool:
        """Whether it is the binary archive and not the python one."""
        return self.names.endswith(".txt")


def _ten(suffix: str) -> dict[str, list[str]]:
    return {"train": [f"data_batch_{i}{suffix}" for i in range(1, 6)], "test": [f"test_batch{suffix}"]}


def _hundred(suffix: str) -> dict[str, list[str]]:
    return {"train": [f"train{suffix}"], "test": [f"test{suffix}"]}


LAYOUTS = (
    Layout("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "batches.meta.txt", _ten(".bin")),
    Layout("cifar-10-python.tar.gz", "cifar-10-batches-py", "batches.meta", _ten("")),
    Layout("cifar-100-binary.tar.gz", "cifar-100-binary", "fine_label_names.txt", _hundred(".bin"), label_bytes=2),
    Layout("cifar-100-python.tar.gz", "cifar-100-python", "meta", _hundred(""), labels="fine_labels"),
)


class Batch:
    """Images of one file, channels first, and their labels."""

    def __init__(self, file: str, images: UInt8[np.ndarray, "images 3072"], labels: Int[np.ndarray, " images"]):
        self.file = PurePosixPath(file).stem
        self.images = images.reshape(-1, 3, SIDE, SIDE)
        self.labels = labels


class CifarSource(Source):
    """The images of the files of each split, in memory."""

    size = SIDE
    raw = True

    def __init__(self, description: str, classes: list[str], batches: dict[str, list[Batch]]):
        self.description, self.classes, self.batches = description, classes, batches
        self.images = {split: sum(len(batch.labels) for batch in found) for split, found in batches.items()}

    def read(self, split: str, index: int) -> Picture:
        for batch in self.batches[split]:
            if index < len(batch.labels):
                pixels = np.ascontiguousarray(batch.images[index].transpose(1, 2, 0))
                return Picture(f"{split}/{batch.file}/{index:05}", int(batch.labels[index]), pixels)
            index -= len(batch.labels)
        raise IndexError(index)

    def fingerprint(self) -> str:
        """SHA-256 of all pixels and labels, hexadecimal."""
        digest = hashlib.sha256()
        for split, batches in self.batches.items():
            for batch in batches:
                digest.update(split.encode() + batch.images.tobytes() + batch.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def cifar_source(path: Path) -> CifarSource | None:
    """CIFAR at a path: an archive, its unpacked folder, or a folder with one of them in it; None if it is not there.

    Raises:
      UserError: if a file of it is missing or damaged.
    """
    for layout in LAYOUTS:
        for place in (path, path / layout.folder, path / layout.archive):
            if place.is_dir() and all((place / name).is_file() for name in (layout.names, layout.splits["test"][0])):
                return _read(
                    layout, place, {file.name: file.read_bytes() for file in sorted(place.iterdir()) if _wanted(layout, file)}
                )
            if place.is_file() and place.name == layout.archive:
                return _read(layout, place, _unpacked(layout, place))
    return None


def _wanted(layout: Layout, file: Path) -> bool:
    return file.is_file() and file.name in _files(layout)


def _files(layout: Layout) -> list[str]:
    return [layout.names, *(file for files in layout.splits.values() for file in files)]


def _unpacked(layout: Layout, archive: Path) -> dict[str, bytes]:
    wanted = {f"{layout.folder}/{name}": name for name in _files(layout)}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg() and member.size <= LARGEST:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[wanted[member.name]] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{archive} is damaged ({error}): fetch it again") from error
    return found


def _read(layout: Layout, place: Path, files: dict[str, bytes]) -> CifarSource:
    if missing := [name for name in _files(layout) if name not in files]:
        raise UserError(f"{place} lacks {', '.join(missing)}: fetch it again")
    try:
        classes = _class_names(layout, files[layout.names])
        read = _binary_batch if layout.binary else _python_batch
        batches = {split: [read(layout, name, files[name]) for name in names] for split, names in layout.splits.items()}
        if any(batch.labels.min() < 0 or batch.labels.max() >= len(classes) for found in batches.values() for batch in found):
            raise ValueError("labels beyond the classes")
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{place} is damaged ({error}): fetch it again") from error
    return CifarSource(layout.archive.removesuffix(".tar.gz"), classes, batches)


def _class_names(layout: Layout, data: bytes) -> list[str]:
    if layout.binary:
        return data.decode().split()
    key = layout.labels.removesuffix("s").encode() + b"_names"
    return [name.decode() if isinstance(name, bytes) else name for name in _unpickled(data)[key]]


def _binary_batch(layout: Layout, name: str, data: bytes) -> Batch:
    rows = np.frombuffer(data, np.uint8).reshape(-1, layout.label_bytes + PIXELS)
    return Batch(name, rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1].astype(np.int64))


def _python_batch(layout: Layout, name: str, data: bytes) -> Batch:
    batch = _unpickled(data)
    images, labels = np.asarray(batch[b"data"]), np.asarray(batch[layout.labels.encode()], np.int64)
    if images.dtype != np.uint8 or images.shape != (len(labels), PIXELS):
        raise ValueError(f"{name} holds {images.dtype} of the shape {images.shape}")
    return Batch(name, images, labels)


class _ArraysOnly(pickle.Unpickler):
    """A pickle can call any function; here, only those that rebuild an array."""

    ALLOWED = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.split(".")[0] == "numpy" and global_name in self.ALLOWED:
            return {"_reconstruct": _reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}[global_name]
        if (module_name, global_name) == ("_codecs", "encode"):  # how Python 3 writes bytes in a way that Python 2 reads
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it wants to call {module_name}.{global_name}, which no array needs")


def _reconstruct(kind: type, shape: tuple[int, ...], _code: bytes) -> np.ndarray:
    return np.empty(shape, np.uint8)  # its shape, type and content follow


def _unpickled(data: bytes) -> dict[bytes, Any]:
    """A pickled dictionary; its keys are bytes, as Python 2 wrote them."""
    content = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
