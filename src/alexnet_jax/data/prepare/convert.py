"""Conversion of a source of images to a prepared data set."""

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

from alexnet_jax.console import console, count, track_progress
from alexnet_jax.cpus import MAX_THREADS, available_cpus
from alexnet_jax.data.images import (
    InvalidImageError,
    Pixels,
    decode_and_center_crop,
    encode_jpeg,
    named_image,
    report_warnings,
    resize_and_center_crop,
    shorter_side,
)
from alexnet_jax.data.manifest import MAX_SIZE, Encoding
from alexnet_jax.data.prepare.shards import PartialDataset, PreparePlan, open_partial_dataset, remove_partial_dataset
from alexnet_jax.data.records import Dataset, Record, is_prepared, open_dataset
from alexnet_jax.data.sources.base import Source
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.layout import check_outside
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.data.statistics import color_products
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.text import file_name_text

MIN_SHARD_IMAGES = 1024
"""Number of images per shard of a small split; doubled until the split has at most `MAX_SHARDS` shards."""
MAX_SHARDS = 512
"""Maximum number of shards per split, all of which a reader keeps open. ImageNet's training split has 313, of 4,096 images."""

MAX_PRINTED_NAMES = 10
"""Maximum number of names of left-out files to print for each reason."""

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PrepareOptions:
    """Options of the conversion.

    Attributes:
      size: side of the images, pixels; None uses the default of the source: 256, as in the paper, or 32 for CIFAR.
      raw: store pixels instead of JPEGs: lossless and without decoding, but ten times the disk space. Always on for CIFAR.
      max_bad: maximum number of unreadable images to skip; more are an error.
      held_out: expected fraction of the images to use for validation, if the source has no splits.
      seed: seed of the random selection of validation images, if the source has no splits.
      tfds_dir: data folder of TensorFlow Datasets; None uses TFDS_DATA_DIR or ~/tensorflow_datasets.
      threads: number of threads that read, resize and encode images; None uses one per CPU that this process may use.
    """

    size: int | None = None
    raw: bool = False
    max_bad: int = 100
    held_out: float = 0.1
    seed: int = 0
    tfds_dir: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_number("--size", self.size, at_least=1, at_most=MAX_SIZE)
        check_number("--max-bad", self.max_bad, at_least=0)
        check_number("--held-out", self.held_out, at_least=0, below=1)
        check_number("--seed", self.seed, at_least=0)
        check_number("--threads", self.threads, at_least=1, at_most=MAX_THREADS)


class PreparedImage(NamedTuple):
    """Image, encoded, with its label and name; its pixels before encoding; and their `color_products`."""

    record: Record
    pixels: Pixels
    products: Int64[np.ndarray, "3 3"]


class SkippedImage(NamedTuple):
    """Name of an image that cannot be read, and the reason."""

    name: str
    reason: str


def prepare(source: Source, out: Path, options: PrepareOptions = PrepareOptions()) -> Dataset:
    """Convert a source to a prepared data set and print a summary.

    The same call resumes an interrupted conversion. Images that cannot be read are skipped, printed, and listed in the manifest.

    Args:
      source: images and labels to convert.
      out: path of the data set. If the data set is already complete, it is only opened.
      options: options of the conversion.

    Raises:
      UserError: if more than `max_bad` images or all training images cannot be read, or if `out` exists with different content
        or cannot be written.
    """
    size = options.size or source.size
    if file_name_text(str(out)) != str(out):
        raise UserError(f"{out} is not UTF-8, which the record files need: choose a different folder for --to")
    encoding: Encoding = "raw" if options.raw or source.raw else "jpeg"
    plan = PreparePlan(
        classes=source.classes,
        size=size,
        encoding=encoding,
        images=source.num_images,
        shard_images={split: _images_per_shard(images) for split, images in source.num_images.items()},
        source=source.description,
        left_out=[f"{name}: {reason}" for name, reason in source.left_out.items()],
        fingerprint=source.fingerprint(),
        display_names=list(source.display_names),
        unlabeled=list(source.unlabeled),
        versions={name: version(name) for name in ("pillow", "simplejpeg", "array-record")},
    )
    if dataset := _open_complete(out, plan):
        remove_partial_dataset(out)
        return dataset
    side = _first_side(source, plan.statistics_split)
    if options.size is None and side and side <= size // 4:
        console.print(f"images of {side} pixels are upscaled to {size} pixels: pass --size {side} to keep their resolution")
    _print_left_out(source)
    with open_partial_dataset(out, plan) as partial, report_warnings(lambda line: console.print(line, style="yellow")):
        if dataset := _open_complete(out, plan):  # by a process that this one has waited for
            return dataset
        shard_ranges = {split: _shard_ranges(images, plan.shard_images[split]) for split, images in source.num_images.items()}
        _write_missing_shards(source, plan, partial, shard_ranges, options)
        partial.finish(out, {split: len(ranges) for split, ranges in shard_ranges.items()})
    dataset = open_dataset(out)
    manifest = dataset.manifest
    unlabeled = {split: f"unlabeled {split}" for split in manifest.unlabeled}
    totals = ", ".join(f"{images:,} {unlabeled.get(split, split)}" for split, images in manifest.splits.items())
    skipped = f", {len(manifest.skipped):,} skipped" if manifest.skipped else ""
    left_out = f", {count(source.num_left_out, 'file')} left out" if source.num_left_out else ""
    console.print(f"{out}: {totals} images of {len(manifest.classes)} classes{skipped}{left_out}")
    return dataset


def _first_side(source: Source, split: str) -> int | None:
    """Return the shorter side of the first image of a split, in pixels, or None if it cannot be read."""
    try:
        return shorter_side(source.read(split, 0).data)
    except InvalidImageError:  # skipped later, by name
        return None


def _open_complete(out: Path, plan: PreparePlan) -> Dataset | None:
    """Open the data set at `out` if it is complete; return None if nothing exists there.

    Raises:
      UserError: if something else exists there.
    """
    if is_prepared(out) and (dataset := open_dataset(out)).manifest.plan == plan.digest:
        console.print(f"{out} is already complete")
        return dataset
    if os.path.lexists(out):  # also a link to nothing, which could not be replaced at the end
        advice = f", or delete {out}" if is_prepared(out) else ""
        raise UserError(f"{out} already exists with different content: choose a different folder for --to{advice}")
    return None


def _print_left_out(source: Source) -> None:
    """Print the files that are not read, one line per reason."""
    names: dict[str, list[str]] = {}
    for name, reason in source.left_out.items():
        names.setdefault(reason, []).append(name)
    for reason, files in names.items():
        more = f" and {len(files) - MAX_PRINTED_NAMES:,} more, in manifest.json" if len(files) > MAX_PRINTED_NAMES else ""
        console.print(f"left out, {reason}: {', '.join(files[:MAX_PRINTED_NAMES])}{more}", style="yellow")


def prepare_path(source: str | Path, out: Path, options: PrepareOptions = PrepareOptions()) -> Dataset:
    """Convert the source at a path or with a `tfds:` name to a prepared data set, as `prepare` does.

    Raises:
      UserError: if the source does not exist, `out` is inside it, or the conversion fails as in `prepare`.
    """
    found = find_source(str(source), ValidationSplit(options.held_out, options.seed), options.tfds_dir)
    check_outside(found.description, source, out, "--to")
    return prepare(found, out, options)


def _images_per_shard(num_images: int) -> int:
    """Return the number of images per shard of a split with `num_images` images."""
    shard_images = MIN_SHARD_IMAGES
    while num_images > shard_images * MAX_SHARDS:
        shard_images *= 2
    return shard_images


def _shard_ranges(num_images: int, shard_images: int) -> list[range]:
    """Return the indices of the images in each shard of a split."""
    return [range(start, min(start + shard_images, num_images)) for start in range(0, num_images, shard_images)]


def _write_missing_shards(
    source: Source, plan: PreparePlan, partial: PartialDataset, shard_ranges: dict[str, list[range]], options: PrepareOptions
) -> None:
    """Write the shards that have no report yet."""
    missing: list[tuple[str, int, range]] = []
    num_bad = num_done = 0
    for split, shard_index, indices in ((split, *shard) for split, ranges in shard_ranges.items() for shard in enumerate(ranges)):
        if report := partial.read_report(split, shard_index):
            num_bad += len(report.skipped)
            num_done += len(indices)
        else:
            missing.append((split, shard_index, indices))
    if num_done:
        console.print(f"resuming after {num_done:,} images")

    def convert(job: tuple[str, int]) -> PreparedImage | SkippedImage:
        return _convert_image(source, *job, plan)

    jobs = [(split, indices) for split, _, indices in missing]
    images = map_in_threads(convert, ((split, index) for split, indices in jobs for index in indices), options.threads)
    with closing(track_progress(images, "Preparing", sum(len(indices) for _, indices in jobs))) as results:
        for split, shard_index, indices in missing:
            with partial.shard_writer(split, shard_index) as writer:
                for result in islice(results, len(indices)):
                    if isinstance(result, PreparedImage):
                        writer.write(*result)
                        continue
                    writer.skip(*result)
                    console.print(f"skipped {result.name}: {result.reason}", style="yellow", markup=False)
                    num_bad += 1
                    if num_bad > options.max_bad:
                        problem = f"{count(num_bad, 'image')} cannot be read, most recently {result.name}"
                        raise UserError(f"{problem}; to skip them, raise --max-bad")


def _convert_image(source: Source, split: str, index: int, plan: PreparePlan) -> PreparedImage | SkippedImage:
    try:
        name, label, data = source.read(split, index)
    except InvalidImageError as error:
        return SkippedImage(f"{split}/{index}", str(error))
    try:
        with named_image(name):
            pixels = (
                decode_and_center_crop(data, plan.size) if isinstance(data, bytes) else resize_and_center_crop(data, plan.size)
            )
    except InvalidImageError as error:
        return SkippedImage(name, str(error))
    if source.prepared and isinstance(data, bytes):
        image = data  # encoding it again would lose quality
    else:
        image = pixels.tobytes() if plan.encoding == "raw" else encode_jpeg(pixels)
    return PreparedImage(Record(image, label, name), pixels, color_products(pixels))


def map_in_threads(function: Callable[[Job], Result], jobs: Iterable[Job], threads: int | None) -> Iterator[Result]:
    """Yield `function(job)` for each job in order, computed ahead in threads.

    Args:
      function: function to call. It runs in parallel if it releases the GIL, as Pillow and NumPy do.
      jobs: arguments; up to four per thread are submitted ahead of the result that is yielded.
      threads: number of threads; None uses one per CPU that this process may use.
    """
    threads = threads or available_cpus()
    queue: list[Future[Result]] = []
    pending = iter(jobs)
    with ThreadPoolExecutor(threads) as pool:
        queue.extend(pool.submit(function, job) for job in islice(pending, 4 * threads))
        while queue:
            yield queue.pop(0).result()
            queue.extend(pool.submit(function, job) for job in islice(pending, 1))
