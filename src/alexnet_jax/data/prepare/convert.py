"""From what people have to a prepared data set."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64

from alexnet_jax.console import console, track_progress
from alexnet_jax.data.images import BadImage, Pixels, encode_jpeg, read_square, shorter_side, square
from alexnet_jax.data.prepare.shards import Plan, Work, forget_work, working_on
from alexnet_jax.data.records import Dataset, Encoding, Record, is_prepared, open_dataset
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.folders import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.data.statistics import color_products
from alexnet_jax.errors import UserError

SMALLEST_SHARD = 1024
MOST_SHARDS = 512  # of a split, because a reader keeps them all open; ImageNet has 313 of 4,096 images

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PrepareOptions:
    """How a source is prepared.

    Attributes:
      size: side of the images, pixels; None is what suits the source: 256, as in the paper, or 32 for CIFAR.
      raw: keep pixels as they are instead of JPEG: ten times the disk, no loss, no decoding. CIFAR always does.
      max_bad: images that may be unreadable before it is an error.
      held_out: where a source has no splits, the share of its pictures that is kept for validation, on average.
      seed: of which ones these are.
      tfds_dir: where TensorFlow Datasets keeps its data; None is where it usually does.
      threads: that read, scale and encode; None is one a core.
    """

    size: int | None = None
    raw: bool = False
    max_bad: int = 100
    held_out: float = 0.1
    seed: int = 0
    tfds_dir: str | None = None
    threads: int | None = None


class Prepared(NamedTuple):
    """An image on its way from a thread to its shard."""

    record: Record
    pixels: Pixels
    products: Int64[np.ndarray, "3 3"]


class Skipped(NamedTuple):
    """An image that cannot be read."""

    name: str
    why: str


def prepare(source: Source, out: Path, options: PrepareOptions = PrepareOptions()) -> Dataset:
    """Makes the data set `out` of a source. Broken off, it goes on where it was when it is called again.

    An image that cannot be read is named, counted and left out.

    Raises:
      UserError: if more than `max_bad` images cannot be read, or none for training can; if `out` is something else already,
        or cannot be written.
    """
    size = options.size or source.size
    if size < 1:
        raise UserError(f"images cannot be {size} pixels large")
    encoding: Encoding = "raw" if options.raw or source.raw else "jpeg"
    plan = Plan(
        classes=source.classes,
        size=size,
        encoding=encoding,
        images=source.images,
        shard_images={split: _shard_images(images) for split, images in source.images.items()},
        source=source.description,
        left_out=list(source.notes),
        fingerprint=source.fingerprint(),
        versions={name: version(name) for name in ("pillow", "simplejpeg", "array-record")},
    )
    if is_prepared(out) and (dataset := open_dataset(out)).manifest.plan == plan.digest:
        forget_work(out)
        console.print(f"{out} is complete already", markup=False)
        return dataset
    if out.exists():
        raise UserError(f"{out} exists and is something else: choose another folder for --to, or delete it")
    side = shorter_side(source.read("train", 0).data)
    if options.size is None and side and side <= size // 4:
        console.print(f"the first picture has {side} pixels and is enlarged to {size}: --size {side} keeps such as they are")
    for note in source.notes:
        console.print(f"left out {note}", style="yellow", markup=False)
    with working_on(out, plan) as work:
        shards = {split: _shards(images, plan.shard_images[split]) for split, images in source.images.items()}
        _write_missing(source, plan, work, shards, options)
        work.finish(out, {split: len(ranges) for split, ranges in shards.items()})
    dataset = open_dataset(out)
    manifest = dataset.manifest
    counts = ", ".join(f"{images:,} {split}" for split, images in manifest.splits.items())
    skipped = f", {len(manifest.skipped)} skipped" if manifest.skipped else ""
    console.print(f"{out}: {counts} images of {len(manifest.classes)} classes{skipped}", markup=False)
    return dataset


def prepare_path(asked: str | Path, out: Path, options: PrepareOptions = PrepareOptions()) -> Dataset:
    """Prepares what is at a path, or has a name (see `sources.find_source`)."""
    if not 0 <= options.held_out < 1:
        raise UserError(f"--held-out is a share of the pictures, from 0 to 1, not {options.held_out}")
    division = ValidationSplit(options.held_out, options.seed)
    return prepare(find_source(str(asked), division, options.tfds_dir), out, options)


def _shard_images(images: int) -> int:
    """Images in a shard of a split that has so many."""
    shard = SMALLEST_SHARD
    while images > shard * MOST_SHARDS:
        shard *= 2
    return shard


def _shards(images: int, shard_images: int) -> list[range]:
    """Places of the images in each shard."""
    return [range(first, min(first + shard_images, images)) for first in range(0, images, shard_images)]


def _write_missing(source: Source, plan: Plan, work: Work, shards: dict[str, list[range]], options: PrepareOptions) -> None:
    """Writes the shards that are not finished."""
    missing: list[tuple[str, int, range]] = []
    bad = done = 0
    for split, number, indices in ((split, *shard) for split, ranges in shards.items() for shard in enumerate(ranges)):
        if report := work.report(split, number):
            bad += len(report.skipped)
            done += len(indices)
        else:
            missing.append((split, number, indices))
    if done:
        console.print(f"going on after {done:,} images")

    def read(job: tuple[str, int]) -> Prepared | Skipped:
        return _read(source, *job, plan)

    jobs = [(split, indices) for split, _, indices in missing]
    pictures = map_in_threads(read, ((split, index) for split, indices in jobs for index in indices), options.threads)
    with closing(track_progress(pictures, "Preparing", sum(len(indices) for _, indices in jobs))) as results:
        for split, number, indices in missing:
            with work.shard(split, number) as writer:
                for result in islice(results, len(indices)):
                    if isinstance(result, Prepared):
                        writer.write(*result)
                        continue
                    writer.skip(*result)
                    console.print(f"skipped {result.name}: {result.why}", style="yellow", markup=False)
                    bad += 1
                    if bad > options.max_bad:
                        said = f"{bad} images cannot be read, the last {result.name}"
                        raise UserError(f"{said}; if that is as it should be, raise --max-bad")


def _read(source: Source, split: str, index: int, plan: Plan) -> Prepared | Skipped:
    try:
        name, label, data = source.read(split, index)
    except BadImage as error:
        return Skipped(f"{split}/{index}", str(error))
    try:
        pixels = read_square(data, plan.size) if isinstance(data, bytes) else square(data, plan.size)
    except BadImage as error:
        return Skipped(name, str(error))
    image = pixels.tobytes() if plan.encoding == "raw" else encode_jpeg(pixels)
    return Prepared(Record(image, label, name), pixels, color_products(pixels))


def map_in_threads(work: Callable[[Job], Result], jobs: Iterable[Job], threads: int | None) -> Iterator[Result]:
    """Results in the order of the jobs, a few ahead of the one asked for. Pillow and NumPy leave the other threads alone."""
    threads = threads or os.cpu_count() or 1
    queue: list[Future[Result]] = []
    pending = iter(jobs)
    with ThreadPoolExecutor(threads) as pool:
        queue.extend(pool.submit(work, job) for job in islice(pending, 4 * threads))
        while queue:
            yield queue.pop(0).result()
            queue.extend(pool.submit(work, job) for job in islice(pending, 1))
