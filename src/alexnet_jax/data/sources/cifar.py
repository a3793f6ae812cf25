"""Source that reads CIFAR-10 or CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), as an archive or a folder.

Both the binary and the Python version are supported. Images keep their 32x32 pixels and are stored without compression, because
JPEG artifacts would be visible at this size.
"""

import hashlib
import lzma
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from alexnet_jax.data.sources.base import Source, SourceImage
from alexnet_jax.errors import UserError
from alexnet_jax.pickles import load_arrays

SIZE = 32
IMAGE_BYTES = SIZE * SIZE * 3
MAX_FILE_BYTES = 256 << 20
"""Size limit of a file in an archive; the real files are smaller."""


@dataclass(frozen=True)
class Layout:
    """File layout of one version of CIFAR.

    Attributes:
      archive: name of the archive.
      folder: folder in the archive.
      class_names: name of the file with the class names.
      splits: names of the image files, by split.
      label_key: key of the labels in a pickled file.
      label_bytes: number of label bytes before each binary image; the last one is the class.
    """

    archive: str
    folder: str
    class_names: str
    splits: dict[str, list[str]]
    label_key: str = "labels"
    label_bytes: int = 1

    @property
    def binary(self) -> bool:
        """Whether this is the binary version rather than the Python version."""
        return self.class_names.endswith(".txt")


def _cifar10_splits(suffix: str) -> dict[str, list[str]]:
    return {"train": [f"data_batch_{i}{suffix}" for i in range(1, 6)], "test": [f"test_batch{suffix}"]}


def _cifar100_splits(suffix: str) -> dict[str, list[str]]:
    return {"train": [f"train{suffix}"], "test": [f"test{suffix}"]}


LAYOUTS = (
    Layout("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "batches.meta.txt", _cifar10_splits(".bin")),
    Layout("cifar-10-python.tar.gz", "cifar-10-batches-py", "batches.meta", _cifar10_splits("")),
    Layout("cifar-100-binary.tar.gz", "cifar-100-binary", "fine_label_names.txt", _cifar100_splits(".bin"), label_bytes=2),
    Layout("cifar-100-python.tar.gz", "cifar-100-python", "meta", _cifar100_splits(""), label_key="fine_labels"),
)
"""Supported versions of CIFAR."""


class Batch(NamedTuple):
    """Images and labels of one file; pixels are in the order channel, row, column."""

    file: str
    images: UInt8[np.ndarray, "images 3072"]
    labels: Int[np.ndarray, " images"]


class CifarSource(Source):
    """CIFAR-10 or CIFAR-100, held in memory."""

    size = SIZE
    raw = True

    def __init__(self, description: str, classes: list[str], batches: dict[str, list[Batch]]):
        self.description, self.classes, self.batches = description, classes, batches
        self.num_images = {split: sum(len(batch.labels) for batch in files) for split, files in batches.items()}

    def read(self, split: str, index: int) -> SourceImage:
        for batch in self.batches[split]:
            if index < len(batch.labels):
                pixels = np.ascontiguousarray(batch.images[index].reshape(3, SIZE, SIZE).transpose(1, 2, 0))
                return SourceImage(f"{split}/{PurePosixPath(batch.file).stem}/{index:05}", int(batch.labels[index]), pixels)
            index -= len(batch.labels)
        raise IndexError(index)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all pixels and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for split, batches in self.batches.items():
            for batch in batches:
                digest.update(split.encode() + batch.images.tobytes() + batch.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def cifar_source(path: Path) -> CifarSource | None:
    """Load CIFAR-10 or CIFAR-100 into memory.

    Args:
      path: a CIFAR archive, compressed or not, whose name may differ if it contains "cifar"; the folder that it contains; or the
        parent folder of either.

    Returns:
      The source, or None if the path contains no version of CIFAR.

    Raises:
      UserError: if a file of CIFAR is missing or damaged.
    """
    for layout in LAYOUTS:
        for location in (path, path / layout.folder):
            names = [name for name in _file_names(layout) if (location / name).is_file()]
            if len(names) > 1 or (names and location.name == layout.folder):
                return _parse(layout, location, {name: _read_file(location / name) for name in names})
    for archive in [path] if path.is_file() else sorted(path.iterdir()):
        is_archive = archive.is_file() and re.fullmatch(r".*cifar.*\.(tar|tar\.gz|tgz)", archive.name, re.IGNORECASE)
        if is_archive and (found := _read_archive(archive)):
            return _parse(found[0], archive, found[1])
    return None


def _read_file(file: Path) -> bytes:
    if file.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{file} is larger than {MAX_FILE_BYTES >> 20} MB: download it again")
    return file.read_bytes()


def _file_names(layout: Layout) -> list[str]:
    return [layout.class_names, *(file for files in layout.splits.values() for file in files)]


def _read_archive(archive: Path) -> tuple[Layout, dict[str, bytes]] | None:
    """Return the version of CIFAR in an archive and its files by name, or None if the archive contains no file of CIFAR."""
    files = {(layout.folder, name): layout for layout in LAYOUTS for name in _file_names(layout)}
    found: Layout | None = next((layout for layout in LAYOUTS if layout.archive == archive.name), None)
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                layout = files.get(PurePosixPath(member.name).parts[-2:])  # pyright: ignore[reportArgumentType, reportCallIssue]
                if layout and member.isreg() and member.size <= MAX_FILE_BYTES and layout is (found := found or layout):
                    file = tar.extractfile(member)
                    assert file is not None
                    contents[PurePosixPath(member.name).name] = file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{archive} is damaged ({error}): download it again") from error
    return (found, contents) if found else None


def _parse(layout: Layout, location: Path, files: dict[str, bytes]) -> CifarSource:
    """Parse the files of a layout."""
    if missing := [name for name in _file_names(layout) if name not in files]:
        advice = "download it again" if location.is_file() else "unpack its archive again"
        raise UserError(f"{location} has no file {', '.join(missing)}: {advice}")
    try:
        classes = _parse_class_names(layout, files[layout.class_names])
        parse = _parse_binary_batch if layout.binary else _parse_python_batch
        batches = {split: [parse(layout, name, files[name]) for name in names] for split, names in layout.splits.items()}
        if any(batch.labels.min() < 0 or batch.labels.max() >= len(classes) for split in batches.values() for batch in split):
            raise ValueError(f"labels outside 0 to {len(classes) - 1}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{location} is damaged ({error}): download it again") from error
    return CifarSource(layout.archive.removesuffix(".tar.gz"), classes, batches)


def _parse_class_names(layout: Layout, data: bytes) -> list[str]:
    if layout.binary:
        return data.decode().split()
    key = layout.label_key.removesuffix("s").encode() + b"_names"
    return [name.decode() if isinstance(name, bytes) else name for name in _unpickle(data)[key]]


def _parse_binary_batch(layout: Layout, name: str, data: bytes) -> Batch:
    rows = np.frombuffer(data, np.uint8).reshape(-1, layout.label_bytes + IMAGE_BYTES)
    return Batch(name, rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1].astype(np.int64))


def _parse_python_batch(layout: Layout, name: str, data: bytes) -> Batch:
    batch = _unpickle(data)
    images, labels = np.asarray(batch[b"data"]), np.asarray(batch[layout.label_key.encode()], np.int64)
    if images.dtype != np.uint8 or images.shape != (len(labels), IMAGE_BYTES):
        actual, expected = f"{images.dtype} {images.shape}", f"uint8 {(len(labels), IMAGE_BYTES)}"
        raise ValueError(f"{name} has images {actual}, expected {expected}")
    return Batch(name, images, labels)


def _unpickle(data: bytes) -> dict[bytes, Any]:
    """Unpickle a dictionary; keys are returned as bytes, as Python 2 wrote them."""
    content = load_arrays(data)
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
