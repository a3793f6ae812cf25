"""On-disk index of image features for nearest-neighbor search, built by `indexing`.

    index.json      metadata, see `IndexMetadata`
    features.npy    float32 [images, features]
    images.jsonl    one line per image: [name, class]

The folder is written under a temporary name and renamed once it is complete.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from alexnet_jax.analysis.exact_search import Neighbors, nearest_neighbors
from alexnet_jax.data.records import Encoding
from alexnet_jax.errors import UserError, disk_full_as_user_error

FORMAT = 2
BLOCK_BYTES, BLOCK_ROWS = 1 << 26, 1 << 14  # maximum size of a block

Features = Float32[np.ndarray, "images features"]
"""Outputs of a layer, one row per image."""


class IndexedImage(NamedTuple):
    """Name of an image in its data source, and name of its class."""

    name: str
    label: str


@dataclass(frozen=True)
class IndexMetadata:
    """Content of index.json.

    Attributes:
      images: number of images.
      features: number of features per image.
      features_bytes: size of features.npy, bytes.
      names_bytes: size of images.jsonl, bytes.
      run: run folder or file of the model.
      step: training step of the model.
      parameters: digest of the model; see `indexing.model_digest`.
      layer: name of the layer whose outputs are the features.
      data: folder of the data set.
      split: split that was indexed.
      size: side of the stored images, pixels.
      encoding: encoding of the stored images.
      format: version of the index format.
    """

    images: int = 0
    features: int = 0
    features_bytes: int = 0
    names_bytes: int = 0
    run: str = ""
    step: int = 0
    parameters: str = ""
    layer: str = ""
    data: str = ""
    split: str = "train"
    size: int = 256
    encoding: Encoding = "jpeg"
    format: int = FORMAT


class Index:
    """Reader of an on-disk feature index.

    Args:
      path: folder of the index.

    Raises:
      UserError: if the folder is not an index, is incomplete or has a different format version.

    Attributes:
      path: folder of the index.
      metadata: content of index.json.
    """

    def __init__(self, path: Path):
        self.path = path
        advice = "delete it and rebuild the index"
        try:
            values = json.loads((path / "index.json").read_text())
            if values["format"] != FORMAT:
                raise UserError(f"{path} has index format {values['format']}, expected {FORMAT}: {advice}")
            self.metadata = IndexMetadata(**values)
            sizes = {"features.npy": self.metadata.features_bytes, "images.jsonl": self.metadata.names_bytes}
            for name, size in sizes.items():
                if (actual := (path / name).stat().st_size) != size:
                    raise ValueError(f"{name} has {actual:,} bytes, expected {size:,}")
            features, shape = np.load(path / "features.npy", mmap_mode="r"), (self.metadata.images, self.metadata.features)
            if features.shape != shape or features.dtype != np.float32 or not features.flags.c_contiguous:
                raise ValueError(f"features.npy has {features.dtype} of shape {features.shape}, expected float32 of {shape}")
            self._start = features.offset
        except FileNotFoundError as error:
            missing = f"is not an index ({Path(error.filename).name} is missing)" if path.exists() else "does not exist"
            raise UserError(f"{path} {missing}: build an index with alexnet-jax index RUN") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): {advice}") from error

    def search(self, queries: Features, count: int) -> Neighbors:
        """Return the images nearest to each query.

        Args:
          queries: features to search for.
          count: number of neighbors per query; all images are returned if there are fewer.

        Returns:
          Exact neighbors; see `exact_search.nearest_neighbors`, which also states the memory required.
        """
        return nearest_neighbors(queries, self.blocks(), count)

    def blocks(self) -> Iterator[Features]:
        """Yield the features in memory-mapped blocks of at most 64 MB.

        Each block is a mapping of its own, so that a process has at most two of them in memory.

        Raises:
          UserError: if the file was truncated after the index was opened. If it is truncated while a block is in use, the
            operating system ends the process.
        """
        file, images, features = self.path / "features.npy", self.metadata.images, self.metadata.features
        rows = max(1, min(BLOCK_BYTES // (4 * features), BLOCK_ROWS))
        for first in range(0, images, rows):
            shape, offset = (min(rows, images - first), features), self._start + 4 * features * first
            try:
                block = np.memmap(file, np.float32, "r", offset, shape)
            except ValueError as error:
                raise UserError(f"{file} was truncated while it was read: rebuild the index") from error
            yield block

    def images(self, indices: Sequence[int] | Int[np.ndarray, "..."]) -> dict[int, IndexedImage]:
        """Return the names and classes of the given images, keyed by index."""
        requested = set(np.ravel(indices).tolist())
        with (self.path / "images.jsonl").open() as lines:
            return {index: IndexedImage(*json.loads(line)) for index, line in enumerate(lines) if index in requested}


class IndexWriter:
    """Writer that appends images to an index.

    Args:
      features: features.npy, open for writing and positioned after its header.
      images: images.jsonl, open for writing.

    Attributes:
      num_written: number of images added so far.
    """

    def __init__(self, features: IO[bytes], images: IO[bytes]):
        self._features, self._images = features, images
        self.num_written = 0

    def add(self, features: Features, images: Sequence[IndexedImage]) -> None:
        """Append images to the index.

        Args:
          features: features, one row per image.
          images: names and classes of the images, in the same order.
        """
        self._features.write(np.ascontiguousarray(features).data)
        for image in images:
            self._images.write((json.dumps(image, ensure_ascii=False) + "\n").encode())
        self.num_written += len(images)


@contextmanager
def create_index(path: Path, metadata: IndexMetadata) -> Iterator[IndexWriter]:
    """Context manager that creates an index and yields its writer.

    The index is written to a temporary folder, which is renamed to `path` on exit, or deleted if an exception is raised.

    Args:
      path: folder to create.
      metadata: metadata of the index; exactly `metadata.images` images must be added.

    Raises:
      UserError: if `path` exists, the disk is full, or another process is building the same index.
    """
    if path.exists():
        raise UserError(f"{path} exists: pass another folder as --to, or delete it")
    partial = path.with_name(f".{path.name}.partial")
    with disk_full_as_user_error(f"for {path}"):
        partial.mkdir(parents=True, exist_ok=True)
        with open(partial / "features.npy", "ab") as features:
            try:
                fcntl.flock(features, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the OS releases the lock when the process ends
            except BlockingIOError:
                raise UserError(f"another process is building {path}: wait until it is finished") from None
            try:
                features.truncate(0)
                size, free = 4 * metadata.images * metadata.features, shutil.disk_usage(partial).free
                if free < 1.05 * size:
                    raise UserError(
                        f"not enough disk space for {path} ({size / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free): free space"
                    )
                _write_header(features, (metadata.images, metadata.features))
                with open(partial / "images.jsonl", "wb") as images:
                    writer = IndexWriter(features, images)
                    yield writer
                    for file in (features, images):
                        file.flush()
                        os.fsync(file.fileno())
                    assert writer.num_written == metadata.images
                    values = {**asdict(metadata), "features_bytes": features.tell(), "names_bytes": images.tell()}
                (partial / "index.json").write_text(json.dumps(values, indent=1) + "\n")
                partial.rename(path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def _write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
