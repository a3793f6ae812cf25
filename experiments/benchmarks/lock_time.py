"""Time per image that the data pipeline holds the interpreter lock, and its throughput without decoding.

Threads of one process share the interpreter lock, so no number of cores loads more images per second than 1 / (time per image
under the lock). Reading from a file, decoding, and copying pixels release it. The time under the lock is measured in one thread,
in which

- the reader of the file returns a copy of the record in memory, as ArrayRecord makes one under the lock,
- the JPEG decoder returns its buffer (a null decoder),
- crops have 16 x 16 pixels; the size of a copy does not matter for the work under the lock.

The throughput of several threads with a null decoder is less than this limit: the cores still read and copy, and a thread that
finds the lock taken sleeps until it is released.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import random_params
from alexnet_jax.data.pipeline.loading import DecodedImages, TrainingBatches
from alexnet_jax.data.records import open_dataset

CROP = 16


@contextmanager
def null_decoder() -> Iterator[None]:
    """Replace the JPEG decoder by a function that only creates the array that it returns."""

    def decode(*arguments: Any) -> np.ndarray:
        height, width, buffer = arguments[4], arguments[5], arguments[7]
        return np.frombuffer(buffer, np.uint8, height * width * 3).reshape(height, width, 3)

    with patch("simplejpeg.decode_jpeg", decode):
        yield


class _RecordsInMemory:
    def __init__(self, records: list[bytes]):
        self._records = list(map(memoryview, records))

    def read(self, begin: int, end: int) -> list[bytes]:
        return [bytes(record) for record in self._records[begin:end]]


def lock_microseconds(dataset: Path, batch_size: int, batches: int) -> float:
    """Return the time per image under the interpreter lock, the median over batches, in microseconds.

    Args:
      dataset: prepared data set of JPEGs with one file.
      batch_size: number of images of a batch.
      batches: number of timed batches.
    """
    opened = open_dataset(dataset)
    size = opened.manifest.size
    images = DecodedImages(opened, "train", size)
    records = images._records
    records._readers[0] = _RecordsInMemory([records[i] for i in range(len(records))])  # pyright: ignore[reportArgumentType]
    params = random_params(
        Augmentation(), len(images), border=size - CROP, colors=opened.color_components, batch_size=batch_size, seed=0
    )
    load = TrainingBatches(images, CROP, slice(None), crop_mean=False)
    seconds: list[float] = []
    with null_decoder():
        for step in range(batches):
            start = time.perf_counter()
            drawn = params[step]
            assert drawn is not None
            load(drawn)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / batch_size * 1e6
