"""Image folders to prepared data sets."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from alexnet_jax.console import console, tracked
from alexnet_jax.data.folders import scan
from alexnet_jax.data.images import BadImage, Pixels, encode_jpeg, read_square
from alexnet_jax.data.records import Dataset, Record, new_dataset, open_dataset
from alexnet_jax.errors import UserError

SIZE = 256
"""Side of a prepared image, pixels (paper, section 2)."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def prepare_folder(source: Path, out: Path) -> Dataset:
    """Turns a folder of images into a data set of 256x256 JPEGs at `out`.

    A file that cannot be read as a picture is named, counted and left out.

    Raises:
      UserError: if the folder is of no use (see `folders.scan`), none of its training images can be read, `out` exists, or
        the disk is full.
    """
    folder = scan(source)
    with new_dataset(out, folder.classes, size=SIZE) as writer:
        for split, files in folder.files.items():
            results = in_threads(_read, files)
            for (path, label), result in tracked(zip(files, results, strict=True), f"Preparing {split}", len(files)):
                name = path.relative_to(source).as_posix()
                if isinstance(result, BadImage):
                    writer.skipped[name] = str(result)
                    console.print(f"skipped {name}: {result}", style="yellow", markup=False)
                else:
                    writer.write(split, Record(result[1], label, name), result[0])
        if not writer.has("train"):
            raise UserError(f"none of the training images in {source} can be read")
    dataset = open_dataset(out)
    counts = ", ".join(f"{images:,} {split}" for split, images in dataset.manifest.splits.items())
    skipped = len(dataset.manifest.skipped)
    console.print(f"{out}: {counts} images of {len(folder.classes)} classes" + (f", {skipped} skipped" if skipped else ""))
    return dataset


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """Results in the order of the jobs, a few ahead of the one asked for. Pillow and NumPy leave the other threads alone."""
    threads = os.cpu_count() or 1
    queue: list[Future[Result]] = []
    pending = iter(jobs)
    with ThreadPoolExecutor(threads) as pool:
        queue.extend(pool.submit(work, job) for job in islice(pending, 4 * threads))
        while queue:
            yield queue.pop(0).result()
            queue.extend(pool.submit(work, job) for job in islice(pending, 1))


def _read(file: tuple[Path, int]) -> tuple[Pixels, bytes] | BadImage:
    try:
        pixels = read_square(file[0], SIZE)
    except BadImage as error:
        return error
    return pixels, encode_jpeg(pixels)
