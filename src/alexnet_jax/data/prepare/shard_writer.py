"""Writer of the record files of a prepared data set."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Int64

from alexnet_jax.data.images import Pixels
from alexnet_jax.data.manifest import Shard
from alexnet_jax.data.records import Record, pack
from alexnet_jax.data.statistics import PixelStatistics
from alexnet_jax.errors import DISK_FULL_ERRNOS, one_line


class ShardReport(NamedTuple):
    """Summary of a finished shard, from which the manifest and the mean image are computed.

    Attributes:
      shard: file of the shard.
      counts: number of images for each label.
      skipped: reason for each skipped image, by name.
      statistics: pixel statistics, empty unless the mean image is that of the split.
    """

    shard: Shard
    counts: dict[int, int]
    skipped: dict[str, str]
    statistics: PixelStatistics


class ShardWriter:
    """Writer of one shard of images, `size` pixels on a side. The file has a temporary name until `finish` is called."""

    def __init__(self, folder: Path, split: str, shard_index: int, size: int, with_statistics: bool):
        self._path = folder / f"{split}-{shard_index:05}.array_record"
        self._temporary_path = self._path.with_suffix(".unfinished")
        # One record per group makes random access fast; compression would not make JPEGs smaller.
        self._writer = ArrayRecordWriter(str(self._temporary_path), "group_size:1,uncompressed")
        self._with_statistics = with_statistics
        self._counts: dict[int, int] = {}
        self._skipped: dict[str, str] = {}
        self._statistics = PixelStatistics(size)

    def write(self, record: Record, pixels: Pixels, products: Int64[np.ndarray, "3 3"] | None = None) -> None:
        """Write an image and update the statistics; `pixels` are those before encoding, and `products` their `color_products`."""
        with _array_record_errors_as_os_errors():
            self._writer.write(pack(record))
        self._counts[record.label] = self._counts.get(record.label, 0) + 1
        if self._with_statistics:
            self._statistics.add(pixels, products)

    def skip(self, name: str, reason: str) -> None:
        """Add a skipped image, with the reason, to the report of the shard."""
        self._skipped[name] = reason

    def finish(self) -> ShardReport:
        """Flush the shard to disk, rename it to its final name, and return its report. A shard without images is deleted.

        Raises:
          OSError: if the shard cannot be written, for example because the disk is full.
        """
        with _array_record_errors_as_os_errors():
            self._writer.close()
        with open(self._temporary_path, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        if self._counts:
            self._temporary_path.rename(self._path)
        else:
            self._temporary_path.unlink()
        shard = Shard(self._path.name, sum(self._counts.values()), size, digest)
        return ShardReport(shard, self._counts, self._skipped, self._statistics)

    def abort(self) -> None:
        """Close the file without renaming it."""
        with suppress(RuntimeError):  # the original exception is already being raised
            self._writer.close()


@contextmanager
def _array_record_errors_as_os_errors() -> Iterator[None]:
    """Convert a RuntimeError of ArrayRecord to an OSError, with the error number inferred from the message."""
    try:
        yield
    except RuntimeError as error:
        for number in DISK_FULL_ERRNOS:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number)) from error
        raise OSError(errno.EIO, one_line(error)) from error
