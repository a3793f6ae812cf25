"""Batches of images with Grain, which shares them out among threads or processes and keeps some ahead."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Thread

import grain
from absl import flags

from alexnet_jax.data.pipeline.augment import Augmentation, Example
from alexnet_jax.data.pipeline.loading import MEMORY_SHARE, CenterCropBatches, DecodedImages, TrainingBatches
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError


@dataclass(frozen=True)
class LoaderOptions:
    """Who reads. It changes how fast batches come, not what is in them.

    The decoder leaves the interpreter to other threads, and threads hand over a batch without a copy and share what is kept
    in memory: on two cores they are faster (`experiments/bench_data.py`), so processes are for machines of many cores.

    Attributes:
      threads: that read and decode; None is one a core, and in each process one.
      processes: that do it instead of this one; 0 is this one.
      memory_share: see `loading.DecodedImages`; processes keep nothing.
    """

    threads: int | None = None
    processes: int = 0
    memory_share: float = MEMORY_SHARE


def training_batches(
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    input_size: int,
    batch_size: int,
    seed: int,
    start: int = 0,
    part: slice = slice(None),
    readers: LoaderOptions = LoaderOptions(),
) -> Iterator[Example]:
    """An endless stream of training batches, from step `start` on.

    The stream is a function of the seed: reading it from step 100 gives what reading it from 0 gives after 100 batches,
    with any number of threads or processes, and what several hosts read of a batch are parts of the same batch. Each epoch
    is shuffled anew; the last batch of an epoch is filled from the next.

    Args:
      dataset: a prepared data set.
      augmentation: what happens to the images.
      input_size: side of the images, pixels.
      batch_size: images in a batch of all hosts together.
      seed: of the order and of the augmentation, not negative.
      start: steps to leave out.
      part: which images of each batch to read.
      readers: who reads.

    Raises:
      UserError: for an image size that the data set does not have, or a negative seed.
    """
    if seed < 0:
        raise UserError(f"the seed is {seed}: choose a --seed of 0 or more")
    images = _images(dataset, "train", augmentation.image_size, readers)
    load = TrainingBatches(images, augmentation, dataset.color_components, input_size, batch_size, seed, part)
    # A whole batch is one piece of work: an element of Grain's for each image would cost more than its crop.
    return _read(grain.MapDataset.range(start, sys.maxsize).map(load), readers)


def evaluation_batches(
    dataset: Dataset,
    split: str,
    *,
    image_size: int,
    input_size: int,
    batch_size: int,
    part: slice = slice(None),
    readers: LoaderOptions = LoaderOptions(),
) -> Iterator[Example]:
    """Every image of a split once, center crop, in order, or a `part` of each batch. The last batch may be smaller.

    With an `input_size` of `image_size` they are whole images, for `augment.ten_views` on the device.
    """
    images = _images(dataset, split, image_size, replace(readers, memory_share=0.0))  # each is read once
    batches = -(-len(images) // batch_size)
    return _read(grain.MapDataset.range(batches).map(CenterCropBatches(images, input_size, batch_size, part)), readers)


def _images(dataset: Dataset, split: str, size: int, readers: LoaderOptions) -> DecodedImages:
    return DecodedImages(dataset, split, size, memory_share=0.0 if readers.processes else readers.memory_share)


def _read(batches: grain.MapDataset[Example], readers: LoaderOptions) -> Iterator[Example]:
    if (readers.threads is not None and readers.threads < 1) or readers.processes < 0:
        raise UserError(f"{readers.threads} threads and {readers.processes} workers cannot read: choose one or more --threads")
    threads = readers.threads or (1 if readers.processes else os.cpu_count() or 1)
    # A batch under way in each thread and one to take: 128 images of 224 pixels are 19 MB.
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1))
    if readers.processes:
        # Grain asks for a flag of its own that is defined only, not parsed, unless absl runs the program.
        flags.FLAGS["grain_enable_multiprocess_worker_profiling"].present = 1
        processes = grain.MultiprocessingOptions(readers.processes, per_worker_buffer_size=1)
        stream = stream.mp_prefetch(processes, worker_init_fn=_live_and_die_with_the_parent)
    return iter(stream)


def _live_and_die_with_the_parent(worker: int, workers: int) -> None:
    """Ctrl-C, and many a job manager's SIGTERM, reaches all processes, but the parent still needs batches to stop in order. If
    that is killed, Grain's processes would wait for it for ever."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=lambda: (parent.join(), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
