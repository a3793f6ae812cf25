"""Streams of batches, loaded and prefetched by Grain in threads or worker processes."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Thread

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from alexnet_jax.cpus import available_cpus
from alexnet_jax.data.pipeline.augment import Augmentation, Example
from alexnet_jax.data.pipeline.loading import MEMORY_FRACTION, CenterCropBatches, DecodedImages, TrainingBatches
from alexnet_jax.data.pipeline.transforms import BatchParams
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import MAX_SEED, UserError, check_number


@dataclass(frozen=True)
class LoaderOptions:
    """Options of the data loader: its speed, and the part of a stream that it loads. They do not affect the batches.

    Reading, decoding and copying release the GIL, which is held for little of the time of an image. Threads return batches
    without a copy and share the cache of decoded images; on two cores they are faster than worker processes
    (`experiments/benchmarks/data_pipeline.py`). Worker processes are for machines with many cores, see docs/data.md.

    Attributes:
      threads: number of threads that read and decode, per process; None uses one per CPU that this process may use,
        or one per worker process.
      workers: number of worker processes; 0 loads in this process.
      memory_fraction: decoded images are cached if they fit in this fraction of the available memory; worker processes cache
        nothing.
      start: number of steps of a training stream to skip.
      batch_slice: part of each global batch that this process loads.
      num_images: number of images of an evaluation stream, selected by `random_part`; None loads the whole split.
    """

    threads: int | None = None
    workers: int = 0
    memory_fraction: float = MEMORY_FRACTION
    start: int = 0
    batch_slice: slice = field(default_factory=lambda: slice(None))
    num_images: int | None = None


def training_batches(
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    input_size: int,
    batch_size: int,
    seed: int,
    loader_options: LoaderOptions = LoaderOptions(),
) -> Iterator[Example]:
    """Return an infinite stream of training batches, starting at step `loader_options.start`.

    The batch of a step depends on the seed, but not on `start` or the number of threads and processes. A stream with `start=100`
    yields the batches that a stream with `start=0` yields after 100 batches.

    Args:
      dataset: prepared data set.
      augmentation: augmentation options.
      input_size: side of the crops, pixels.
      batch_size: global batch size, over all processes.
      seed: seed of the order and the augmentation, at least 0.
      loader_options: threads, worker processes, cache, first step, and part of each batch.

    Raises:
      UserError: if the image size is not available in the data set, the seed is negative, or the loader options are invalid.
    """
    check_number("--seed", seed, at_least=0, at_most=MAX_SEED)
    images = _decoded_images(dataset, "train", augmentation.image_size, loader_options)
    border, colors = images.size - input_size, dataset.color_components
    params = random_params(augmentation, len(images), border=border, colors=colors, batch_size=batch_size, seed=seed)
    batches = params.map(TrainingBatches(images, input_size, loader_options.batch_slice, crop_mean=augmentation.mean == "crop"))
    return _prefetch(batches[loader_options.start :], loader_options)


def random_params(
    augmentation: Augmentation, num_images: int, *, border: int, colors: ColorComponents, batch_size: int, seed: int
) -> grain.MapDataset[BatchParams]:
    """Return the images and the random augmentation parameters of every training batch, by step.

    Each transform has random numbers of its own, so those of the others do not change if it is removed.

    Args:
      augmentation: augmentation options.
      num_images: number of images of the training split.
      border: side of the image minus side of the crop, pixels.
      colors: principal components of the training set's colors.
      batch_size: global batch size, over all processes.
      seed: seed of the order and the augmentation, at least 0.
    """

    def center_crops(step: int) -> BatchParams:
        return BatchParams.center_crops(image_indices(step, num_images, batch_size=batch_size, seed=seed), border, colors)

    # A Grain element is a whole batch: the overhead of one element per image would exceed the cost of its crop.
    params = grain.MapDataset.range(sys.maxsize).map(center_crops)
    for transform in augmentation.transforms:
        entropy = [seed, *type(transform).__name__.encode()]
        params = params.random_map(transform.random_map, seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    return params


def image_indices(step: int, num_images: int, *, batch_size: int, seed: int) -> Int[np.ndarray, " batch_size"]:
    """Return the indices of the images of a training batch.

    Each epoch contains every image once, in a new random order. The last batch of an epoch is filled from the next epoch.

    Grain's `range(n).shuffle().repeat().batch(b)` is not used: it takes 15 microseconds per image, a quarter of the time of a
    crop from memory (this function takes 0.4), and for three images its permutation never returns for some seeds (Grain 0.2.18).

    Args:
      step: training step, from 0.
      num_images: number of images of the training split.
      batch_size: global batch size.
      seed: seed of the order.
    """
    epochs, positions = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), num_images)
    orders = [
        _epoch_order(num_images, seed, epoch)[positions[epochs == epoch]] for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
    return np.concatenate(orders)


@lru_cache(maxsize=2)  # the current epoch and the next, which other threads may already be loading
def _epoch_order(num_images: int, seed: int, epoch: int) -> Int[np.ndarray, " num_images"]:
    return np.random.default_rng([seed, epoch, 1]).permutation(num_images).astype(np.int32)


def evaluation_batches(
    dataset: Dataset,
    split: str,
    *,
    image_size: int,
    input_size: int,
    batch_size: int,
    loader_options: LoaderOptions = LoaderOptions(),
) -> Iterator[Example]:
    """Return a stream of center crops of every image of a split, or of a part of it, in order. The last batch may be smaller.

    Args:
      dataset: prepared data set.
      split: name of the split.
      image_size: side to which images are decoded, pixels.
      input_size: side of the crops, pixels; `image_size` gives whole images, for `evaluation.views.ten_views` on the device.
      batch_size: global batch size, over all processes.
      loader_options: threads, worker processes, part of each batch, and part of the split; nothing is cached.

    Raises:
      UserError: if the image size is not available in the data set, or the loader options are invalid.
    """
    images = _decoded_images(dataset, split, image_size, replace(loader_options, memory_fraction=0.0))  # each image is read once
    num_images = loader_options.num_images
    indices = range(len(images)) if num_images is None else random_part(len(images), num_images)
    load_batch = CenterCropBatches(images, indices, input_size, batch_size, loader_options.batch_slice)
    return _prefetch(grain.MapDataset.range(-(-len(indices) // batch_size)).map(load_batch), loader_options)


def random_part(num_images: int, size: int) -> Int[np.ndarray, " size"]:
    """Return the indices of a random part of a split, in ascending order.

    It depends on nothing else, so errors on it can be compared between runs. It contains the smaller parts of the same split.

    Args:
      num_images: number of images of the split.
      size: number of images of the part, or of the split if that has fewer.
    """
    return np.sort(np.random.default_rng(0).permutation(num_images)[:size])


def _decoded_images(dataset: Dataset, split: str, size: int, options: LoaderOptions) -> DecodedImages:
    return DecodedImages(dataset, split, size, memory_fraction=0.0 if options.workers else options.memory_fraction)


def _prefetch(batches: grain.MapDataset[Example], options: LoaderOptions) -> Iterator[Example]:
    if (options.threads is not None and options.threads < 1) or options.workers < 0:
        raise UserError(
            f"--threads is {options.threads} and --workers is {options.workers}: pass --threads 1 or more, --workers 0 or more"
        )
    threads = options.threads or (1 if options.workers else available_cpus())
    # One batch per thread is being loaded and one is ready; a batch of 128 images of 224 x 224 pixels takes 19 MB.
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1))
    if options.workers:
        # Grain reads this flag. Without this line absl raises an error, because `absl.app.run` has not parsed the flags.
        flags.FLAGS["grain_enable_multiprocess_worker_profiling"].present = 1
        multiprocessing_options = grain.MultiprocessingOptions(options.workers, per_worker_buffer_size=1)
        stream = stream.mp_prefetch(multiprocessing_options, worker_init_fn=_initialize_worker)
    return iter(stream)


def _initialize_worker(worker_index: int, num_workers: int) -> None:
    """Ignore SIGINT and SIGTERM, and exit when the parent process ends.

    Ctrl-C and the SIGTERM of many job managers reach all processes, but the parent needs batches until it has stopped.
    If the parent is killed, Grain's worker processes would wait for it forever.
    """
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=lambda: (parent.join(), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
