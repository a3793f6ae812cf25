"""On-disk index of image features for nearest-neighbor search, written by `index_writer`.

    index.json           metadata, see `IndexMetadata`
    features.npy         float32 [images, features]
    squared_norms.npy    float64 [images]: squared norms of the features
    images.jsonl         one line per image: [name, class]
    line_ends.npy        int64 [images]: offset of the end of each line, bytes
    codes.safetensors    optional: binary codes, see `code_search`

Format 2, which can still be read, lacks the squared norms and line ends.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from alexnet_jax.analysis.exact_search import Neighbors, SquaredNorms, nearest_neighbors
from alexnet_jax.data.manifest import Encoding
from alexnet_jax.data.npy_file import map_array
from alexnet_jax.errors import UserError

FORMAT = 3
READABLE_FORMATS = (2, FORMAT)
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


_REBUILD = "delete the folder of the index and build it again"


class Index:
    """Reader of an on-disk feature index.

    Raises:
      UserError: if the folder is not an index, is incomplete or has a different format version.
      OSError: if the system refuses to read it, which is no damage.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            values = json.loads((path / "index.json").read_text())
            if values["format"] not in READABLE_FORMATS:
                raise UserError(f"{path} has index format {values['format']}, expected {FORMAT}: {_REBUILD}")
            self.metadata = IndexMetadata(**values)
            sizes = {"features.npy": self.metadata.features_bytes, "images.jsonl": self.metadata.names_bytes}
            for name, size in sizes.items():
                if (actual := (path / name).stat().st_size) != size:
                    raise ValueError(f"{name} has {actual:,} bytes, expected {size:,}")
            images = self.metadata.images
            self._start = self._array("features.npy", np.float32, images, self.metadata.features).offset
            has_arrays = self.metadata.format == FORMAT
            self._norms = self._array("squared_norms.npy", np.float64, images) if has_arrays else None
            self._line_ends = self._array("line_ends.npy", np.int64, images) if has_arrays else None
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = f"is not an index ({Path(error.filename).name} is missing)" if path.exists() else "does not exist"
            raise UserError(f"{path} {missing}: build an index with alexnet-jax index RUN") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): {_REBUILD}") from error

    def _array(self, name: str, dtype: type[np.generic], *shape: int) -> np.memmap:
        """Map an array file into memory.

        Raises:
          UserError: if it is missing or damaged.
          ValueError: if it has another type or shape.
        """
        array = map_array(self.path / name, _REBUILD)
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"{name} has {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of {shape}")
        return array

    def search(self, queries: Features, count: int) -> Neighbors:
        """Return the images nearest to each query.

        Args:
          queries: features to search for.
          count: number of neighbors per query; all images are returned if there are fewer.

        Returns:
          Exact neighbors; see `exact_search.nearest_neighbors`, which also states the memory required.
        """
        return nearest_neighbors(queries, self.blocks(), count, self._norms)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of `blocks`."""
        return len(self._block_starts())

    def _block_starts(self) -> range:
        rows = max(1, min(BLOCK_BYTES // (4 * self.metadata.features), BLOCK_ROWS))
        return range(0, self.metadata.images, rows)

    def blocks(self) -> Iterator[Features]:
        """Yield the features in memory-mapped blocks of at most 64 MB, while the operating system reads the next one.

        Each block is a mapping of its own, so that a process has at most two of them in memory.

        Raises:
          UserError: if the file was truncated after the index was opened. If it is truncated while a block is in use, the
            operating system ends the process.
        """
        path, starts = self.path / "features.npy", self._block_starts()
        images, features = self.metadata.images, self.metadata.features
        with path.open("rb") as file:
            for first in starts:
                offset, size = self._start + 4 * features * first, 4 * features * starts.step
                _advise(file, offset + size, size)
                try:
                    block = np.memmap(file, np.float32, "r", offset, (min(starts.step, images - first), features))
                except ValueError as error:
                    raise UserError(f"{path} was truncated while it was read: rebuild the index") from error
                yield block

    def rows(self, indices: Int[np.ndarray, " images"]) -> Features:
        """Return the features of the given images, in the given order.

        Raises:
          UserError: if the file was truncated after the index was opened.
        """
        rows = np.empty((len(indices), self.metadata.features), np.float32)
        with open(self.path / "features.npy", "rb", buffering=0) as file:
            for index in indices.tolist():  # the disk reads many rows at once
                _advise(file, self._start + index * rows.strides[0], rows.strides[0])
            for number, index in enumerate(indices.tolist()):
                self._read(file, index, rows[number : number + 1])
        return rows

    def norms(self, indices: Int[np.ndarray, " images"]) -> SquaredNorms | None:
        """Return the squared norms of the features of the given images, or None if the index has none."""
        return None if self._norms is None else np.asarray(self._norms[indices])

    def _read(self, file: IO[bytes], first: int, rows: Features) -> None:
        """Read consecutive rows, beginning with image `first`.

        Raises:
          UserError: if the file ends before.
        """
        content, offset = rows.data.cast("B"), self._start + first * rows.strides[0]
        while content:
            num_read = os.preadv(file.fileno(), [content], offset)
            if not num_read:
                raise UserError(f"{self.path / 'features.npy'} was truncated while it was read: rebuild the index")
            content, offset = content[num_read:], offset + num_read

    def images(self, indices: Sequence[int] | Int[np.ndarray, "..."]) -> dict[int, IndexedImage]:
        """Return the names and classes of the given images, keyed by index.

        Raises:
          UserError: if images.jsonl or line_ends.npy is damaged.
        """
        requested = sorted(set(np.ravel(indices).tolist()))
        try:
            with (self.path / "images.jsonl").open("rb") as file:
                ends = _line_ends(file) if self._line_ends is None else self._line_ends
                images = {}
                for index in requested:
                    start = int(ends[index - 1]) if index else 0
                    file.seek(start)
                    images[index] = IndexedImage(*json.loads(file.read(int(ends[index]) - start)))
            return images
        except (ValueError, TypeError, IndexError) as error:
            raise UserError(f"{self.path} is damaged (images.jsonl or line_ends.npy): delete it and rebuild the index") from error


def _line_ends(file: IO[bytes]) -> Int[np.ndarray, " lines"]:
    """Return the offset of the end of each line."""
    return np.cumsum([len(line) for line in file])


def _advise(file: IO[bytes], offset: int, size: int) -> None:
    """Let the operating system, if it takes advice, begin to read a part of a file into the page cache."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)
