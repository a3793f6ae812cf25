"""Batches of images with Grain."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from alexnet_jax.data.augment import Augmentation, CentreView, Example, TrainingView
from alexnet_jax.data.records import Dataset


@dataclass(frozen=True)
class Slice:
    """The part of every batch that this process reads: part `index` of `count`."""

    index: int = 0
    count: int = 1


def training_batches(
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    input_size: int,
    batch_size: int,
    seed: int,
    start: int = 0,
    part: Slice = Slice(),
    threads: int | None = None,
) -> Iterator[Example]:
    """An endless stream of training batches, from step `start` on.

    The stream is a function of the seed: reading it from step 100 gives what reading it from 0 gives after 100 batches,
    with any number of threads, and the parts of several processes put together are one process's batches. Each epoch is
    shuffled anew; the last batch of an epoch is filled from the next.

    Args:
      dataset: a prepared data set.
      augmentation: what happens to the images.
      input_size: side of the images, pixels.
      batch_size: images in a batch of all processes together.
      seed: of the order and of the augmentation.
      start: steps to leave out.
      part: which part of each batch to read.
      threads: readers; None is one a core.
    """
    view = TrainingView(augmentation, input_size, dataset.color_components, seed)
    stream = _source(dataset, "train").seed(seed).shuffle().repeat().map_with_index(view)
    stream = stream[part.index :: part.count].batch(batch_size // part.count, drop_remainder=True, batch_fn=_stack)
    return _read(stream[start:], threads)


def evaluation_batches(
    dataset: Dataset, split: str, *, image_size: int, input_size: int, batch_size: int, threads: int | None = None
) -> Iterator[Example]:
    """Every image of a split once, centre crop, in order. The last batch may be smaller."""
    stream = _source(dataset, split).map(CentreView(image_size, input_size)).batch(batch_size, batch_fn=_stack)
    return _read(stream, threads)


def _source(dataset: Dataset, split: str) -> grain.MapDataset[bytes]:
    records: Any = grain.sources.ArrayRecordDataSource(dataset.shards(split))  # has what a source needs, undeclared
    return grain.MapDataset.source(records)


def _read(stream: grain.MapDataset, threads: int | None) -> Iterator[Example]:
    # The decoder leaves the interpreter to other threads, so threads beat processes; a few batches ahead are enough.
    threads = threads or os.cpu_count() or 1
    return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def _stack(examples: Sequence[Example]) -> Example:
    return Example(*(np.stack(values) for values in zip(*examples, strict=True)))
