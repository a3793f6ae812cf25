"""Time and memory of a training data set of ImageNet's number of images, with images of a few bytes.

    make experiment EXP=benchmarks/million_records

Writes 1,281,167 raw images of 2 x 2 pixels in as many files as `prepare` does for ImageNet. It measures in new processes: opening
the data set up to the first batch, the random order of an epoch, the first batch of a training resumed in the middle of its 90th
epoch, and reading batches afterwards. The last line of the output is one JSON object, which is also written to
experiments/results/million_records.json.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from alexnet_jax.data.manifest import Manifest, Shard
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, image_indices, training_batches
from alexnet_jax.data.prepare.shard_writer import ShardWriter
from alexnet_jax.data.records import Record, open_dataset

RESULT = Path(__file__).parents[1] / "results" / "million_records.json"
SIZE, BATCH, CLASSES, SHARD_IMAGES = 2, 128, 1000, 4096
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


def _megabytes() -> int:
    # The peak of `getrusage` would include the parent process, from which this one was forked.
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None
    return int(peak[1]) >> 10


def main(bench: Bench) -> None:
    """Run all measurements; write and print the results."""
    start, steps = time.perf_counter(), bench.images * EPOCH // BATCH
    image_indices(steps, bench.images, batch_size=BATCH, seed=0)
    result: dict[str, Any] = {"images": bench.images, "epoch_order_seconds": round(time.perf_counter() - start, 3)}
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), bench.images)
        result["files"] = len(list(Path(folder).glob("*.array_record")))
        for name, step in (("start", 0), ("resumed", steps + bench.images // BATCH // 2)):
            command = [sys.executable, __file__, "--measure", folder, str(step)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result[name] = {"step": step, **json.loads(output)}
    result["cores"] = os.cpu_count()
    bench.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main(tyro.cli(Bench))
