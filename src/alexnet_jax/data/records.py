"""A prepared data set: a folder of square JPEGs in ArrayRecord files, with a manifest and the training set's mean image.

    manifest.json                 classes, images in each split, colour components, what was skipped
    mean_image.npy                float32 [size, size, 3], 0 to 255
    train-00000.array_record …    records of {"image", "label", "name"} in MessagePack

The folder appears under its name only when it is complete.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float

from alexnet_jax.data.statistics import ColorComponents, PixelStatistics
from alexnet_jax.errors import UserError

FORMAT = 2
Encoding = Literal["jpeg", "raw"]
"""How a record holds an image: as JPEG, or as the bytes of its pixels [size, size, 3]: ten times the disk, no decoding."""

SHARD = 8192  # images a file: ImageNet makes 157 of them, each small enough to copy or lose


class Record(NamedTuple):
    """One square image, as the manifest's `encoding` says, number of its class, and where it came from."""

    image: bytes
    label: int
    name: str


@dataclass(frozen=True)
class Manifest:
    """What is in a prepared data set. `splits` counts images; `skipped` names files that could not be read, and why."""

    name: str
    size: int
    classes: list[str]
    splits: dict[str, int]
    color_deviations: list[float]
    color_directions: list[list[float]]
    skipped: dict[str, str] = field(default_factory=dict)
    encoding: Encoding = "jpeg"
    format: int = FORMAT


@dataclass(frozen=True)
class Dataset:
    """A prepared data set that has been opened."""

    path: Path
    manifest: Manifest

    def shards(self, split: str) -> list[str]:
        """Files of a split, in order."""
        return [str(path) for path in sorted(self.path.glob(f"{split}-*.array_record"))]

    @property
    def mean_image(self) -> Float[np.ndarray, "size size 3"]:
        return np.load(self.path / "mean_image.npy", allow_pickle=False)

    @property
    def color_components(self) -> ColorComponents:
        return ColorComponents(np.array(self.manifest.color_deviations), np.array(self.manifest.color_directions))

    @property
    def evaluation_split(self) -> str:
        """The split that the error is measured on: validation, or test if there is none.

        Raises:
          UserError: if there is neither.
        """
        for split in ("validation", "test"):
            if split in self.manifest.splits:
                return split
        raise UserError(f"{self.path} has no validation or test images to measure the error on: add some and prepare it again")


def pack(record: Record) -> bytes:
    packed = msgpack.packb(record._asdict())
    assert packed is not None
    return packed


def unpack(data: bytes) -> Record:
    return Record(**msgpack.unpackb(data))


def is_prepared(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def open_dataset(path: Path) -> Dataset:
    """Opens a prepared data set.

    Raises:
      UserError: if it is of another version, or a file of it is missing or damaged.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            raise UserError(f"{path} was prepared by another version of alexnet-jax: delete it and prepare it again")
        dataset = Dataset(path, Manifest(**manifest))
        shape = dataset.mean_image.shape
        if shape != (dataset.manifest.size, dataset.manifest.size, 3):
            raise ValueError(f"mean_image.npy has the shape {shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and prepare it again") from error
    for split, images in dataset.manifest.splits.items():
        if len(dataset.shards(split)) != -(-images // SHARD):
            raise UserError(f"{path} lacks some of its {split} files: delete it and prepare it again")
    return dataset


class DatasetWriter:
    """Receives the images of a data set, one split after another."""

    def __init__(self, path: Path, name: str, size: int, classes: list[str]):
        self._path, self._name, self._size, self._classes = path, name, size, classes
        self._statistics = PixelStatistics(size)
        self._splits: dict[str, int] = {}
        self._shard: ArrayRecordWriter | None = None
        self.skipped: dict[str, str] = {}

    def write(self, split: str, record: Record, pixels: np.ndarray) -> None:
        """Adds an image; `pixels` are its decoded pixels, for the statistics of the training set."""
        position = self._splits.setdefault(split, 0)
        if position % SHARD == 0:
            self.close_shard()
            shard = self._path / f"{split}-{position // SHARD:05}.array_record"
            # Groups of one record are what random access wants; JPEG does not compress further.
            self._shard = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
        assert self._shard is not None
        self._shard.write(pack(record))
        self._splits[split] += 1
        if split == "train":
            self._statistics.add(pixels)

    def has(self, split: str) -> bool:
        return split in self._splits

    def close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def finish(self) -> None:
        """Writes the mean image and, last, the manifest."""
        self.close_shard()
        components = self._statistics.color_components()
        np.save(self._path / "mean_image.npy", self._statistics.mean_image)
        manifest = Manifest(
            self._name,
            self._size,
            self._classes,
            self._splits,
            components.deviations.tolist(),
            components.directions.tolist(),
            self.skipped,
        )
        (self._path / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1) + "\n")


@contextmanager
def new_dataset(path: Path, classes: list[str], *, size: int) -> Iterator[DatasetWriter]:
    """A writer of a data set that takes its place at `path` only if the block ends well.

    Raises:
      UserError: if `path` exists or cannot be written to, or the disk is full.
    """
    if path.exists():
        raise UserError(f"{path} exists: choose another folder for --to, or delete it")
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        writer = DatasetWriter(partial, path.name, size, classes)
        try:
            yield writer
        finally:
            writer.close_shard()
        writer.finish()
        partial.rename(path)
    except (OSError, RuntimeError) as error:
        # ArrayRecord reports a full disk as a RuntimeError of its own; ask the disk.
        if getattr(error, "errno", None) == errno.ENOSPC or (partial.exists() and shutil.disk_usage(partial).free < 1 << 20):
            raise UserError(f"no room left on the disk for {path}: free some, or choose another folder") from error
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
