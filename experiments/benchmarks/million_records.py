"""Time and memory of data sets of ImageNet's number of images, with images of a few bytes.

    make experiment EXP=benchmarks/million_records

Writes 1,281,167 raw images of 2 x 2 pixels in as many files as `prepare` does for ImageNet. It measures in new processes: opening
the data set up to the first batch, the random order of an epoch, the first batch of a training resumed in the middle of its 90th
epoch, and reading batches afterwards. It also measures listing the same number of images, with their labels, in 1,088 WebDataset
archives (links to one archive). The last line of the output is one JSON object, which is also written to
experiments/results/million_records.json.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.data.manifest import Manifest, Shard
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, image_indices, training_batches
from alexnet_jax.data.prepare.shard_writer import ShardWriter
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.data.sources.held_out import ValidationSplit
from alexnet_jax.data.sources.registry import find_source
from alexnet_jax.errors import check_at_least
from alexnet_jax.files import write_json

RESULT = Path(__file__).parents[1] / "results" / "million_records.json"
SIZE, BATCH, CLASSES, SHARD_IMAGES = 2, 128, 1000, 4096
ARCHIVE_IMAGES, VALIDATION_ARCHIVES = 1178, 64
EPOCH = 89
"""Epoch in which the resumed training continues, from 0."""


@dataclass(frozen=True)
class Bench:
    """Measure opening, shuffling, resuming and reading of a data set with many images.

    Attributes:
      images: number of images.
      out: JSON file for the result.
    """

    images: int = 1_281_167
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, images=BATCH)


def write_dataset(folder: Path, images: int) -> None:
    """Write a prepared data set of raw images."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    shards: list[Shard] = []
    for start in range(0, images, SHARD_IMAGES):
        writer = ShardWriter(folder, "train", len(shards), SIZE, with_statistics=False)
        for index in range(start, min(start + SHARD_IMAGES, images)):
            writer.write(Record(index.to_bytes(12), index % CLASSES, f"{index:08}.jpg"), pixels)
        shards.append(writer.finish().shard)
    np.save(folder / "mean_image.npy", pixels.astype(np.float32))
    counts = np.bincount(np.arange(images) % CLASSES, minlength=CLASSES).tolist()
    names = [str(i) for i in range(CLASSES)]
    manifest = Manifest("million", SIZE, names, {"train": images}, [1.0] * 3, np.eye(3).tolist(), encoding="raw")
    manifest.counts["train"], manifest.shards["train"] = counts, shards
    (folder / "manifest.json").write_text(manifest.to_json())


def measure(folder: Path, start: int) -> dict[str, float]:
    """Return times in seconds and memory in MB of a training that starts at a step."""
    before, begin = _megabytes(), time.perf_counter()
    dataset = open_dataset(folder)
    opened = time.perf_counter()
    options = LoaderOptions(threads=1, memory_fraction=0.0, start=start)
    batches = training_batches(
        dataset, Augmentation(image_size=SIZE), input_size=SIZE - 1, batch_size=BATCH, seed=0, loader_options=options
    )
    next(batches)
    first = time.perf_counter()
    timed = 1000
    for _ in islice(batches, timed):
        pass
    read = time.perf_counter()
    return {
        "open_seconds": round(opened - begin, 2),
        "first_batch_seconds": round(first - begin, 2),
        "microseconds_per_image": round((read - first) / timed / BATCH * 1e6, 1),
        "megabytes_after_imports": before,
        "megabytes": _megabytes(),
    }


def write_archives(folder: Path, images: int) -> None:
    """Write WebDataset archives with about this number of images: links to one archive, written as webdataset does."""
    archive = folder / "archive"
    with tarfile.open(archive, "w") as tar:
        for index in range(ARCHIVE_IMAGES):
            for suffix, content in (("cls", str(index % CLASSES).encode()), ("jpg", b"\xff\xd8\xff")):
                member = tarfile.TarInfo(f"{index:08}.{suffix}")
                member.size, member.mtime = len(content), time.time()
                tar.addfile(member, io.BytesIO(content))
    (folder / "archives").mkdir()
    for number in range(-(-images // ARCHIVE_IMAGES)):
        split = "validation" if number < VALIDATION_ARCHIVES else "train"
        (folder / "archives" / f"{split}-{number:04}.tar").hardlink_to(archive)


def measure_listing(folder: Path) -> dict[str, float]:
    """Return times in seconds and memory in MB of listing the images of archives and their labels."""
    before, begin, cpu = _megabytes(), time.perf_counter(), time.process_time()
    source = find_source(str(folder), ValidationSplit())
    return {
        "archives": len(list(folder.iterdir())),
        "images": sum(source.num_images.values()),
        "list_seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "megabytes_after_imports": before,
        "megabytes": _megabytes(),
    }


def _megabytes() -> int:
    # The peak of `getrusage` would include the parent process, from which this one was forked.
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None
    return int(peak[1]) >> 10


def _in_new_process(*arguments: str) -> dict[str, float]:
    output = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


def main(bench: Bench) -> None:
    """Run all measurements; write and print the results."""
    start, steps = time.perf_counter(), bench.images * EPOCH // BATCH
    image_indices(steps, bench.images, batch_size=BATCH, seed=0)
    result: dict[str, Any] = {"images": bench.images, "epoch_order_seconds": round(time.perf_counter() - start, 3)}
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), bench.images)
        result["files"] = len(list(Path(folder).glob("*.array_record")))
        for name, step in (("start", 0), ("resumed", steps + bench.images // BATCH // 2)):
            result[name] = {"step": step, **_in_new_process("--measure", folder, str(step))}
        write_archives(Path(folder), bench.images)
        result["webdataset"] = _in_new_process("--measure-listing", f"{folder}/archives")
    result["cores"] = os.cpu_count()
    print(json.dumps(result))
    write_json(bench.out, result)


if __name__ == "__main__":
    with exit_on_error():
        if sys.argv[1:2] == ["--measure"]:
            print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
        elif sys.argv[1:2] == ["--measure-listing"]:
            print(json.dumps(measure_listing(Path(sys.argv[2]))))
        else:
            main(tyro.cli(Bench))
