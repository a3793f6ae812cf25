"""Benchmark of the data pipeline against other loaders on the same images.

    make bench-data
    make bench-data ARGS="--data data/imagenet --rounds 9 --memory-batches 20000"

Each loader decodes JPEGs of 256x256 pixels, takes a random 224x224 crop with a random horizontal flip, and returns uint8 batches
of 128 images. The loaders run one after another, each in its own process, for several rounds; results are medians in images per
second, and the ratios of two loaders are taken within each round. This pipeline runs with several numbers of threads and of
worker processes, also with a null decoder, and its time under the interpreter lock is measured (`lock_time`). The others are
those of `other_loaders` that are installed. The images are synthetic (`alexnet_jax.data.sources.synthetic`) unless --data names a
prepared data set. The last line of the output is one JSON object, which is also written to experiments/results/data.json.
"""

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from lock_time import lock_microseconds, null_decoder
from other_loaders import BATCH, CORES, SIZE, STORED, other_loaders

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.console import console, track_progress
from alexnet_jax.data.images import decode_jpeg, encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, image_indices, random_params, training_batches
from alexnet_jax.data.pipeline.copy_crop import CropBuffer, copy_crop
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.shards import PreparePlan, open_partial_dataset
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.data.sources.synthetic import CLASSES, draw_image
from alexnet_jax.errors import UserError, check_at_least
from alexnet_jax.files import write_json

RESULT = Path(__file__).parents[1] / "results" / "data.json"
STATM = Path("/proc/self/statm")
PACKAGES = ("grain", "array-record", "simplejpeg", "pillow", "numpy", "torch", "torchvision", "spdl", "tensorflow-cpu")
UNCACHED = LoaderOptions(memory_fraction=0.0)
DEFAULT = f"alexnet_jax {CORES} threads"
THREADS = sorted({1, 2, 4, CORES})
OWN = {
    **{f"alexnet_jax {n} threads": ("jpeg", replace(UNCACHED, threads=n)) for n in THREADS},
    **{f"alexnet_jax {n} processes": ("jpeg", LoaderOptions(workers=n)) for n in THREADS},
    "alexnet_jax raw": ("raw", UNCACHED),
    "alexnet_jax in memory": ("jpeg", LoaderOptions(memory_fraction=1.0)),
}
"""Encoding and options of each loader of this package."""


@dataclass(frozen=True)
class Bench:
    """Measure the throughput of this data pipeline and of other data loaders.

    Attributes:
      data: prepared data set of 256-pixel JPEGs; None uses synthetic images.
      images: maximum number of images.
      rounds: number of rounds; each times every loader once.
      batches: number of timed batches per loader and round.
      memory_batches: number of batches over which memory use is recorded; 0 skips this measurement.
      out: JSON file for the result.
    """

    data: Path | None = None
    images: int = 2000
    rounds: int = 5
    batches: int = 40
    memory_batches: int = 1000
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, images=1, rounds=1, batches=1, memory_batches=0)


def make_images(folder: Path, bench: Bench) -> None:
    """Write the same images as a JPEG data set, `jpeg`, a raw data set, `raw`, and JPEG files, `files`."""
    rng = np.random.default_rng(0)
    if bench.data is None:
        jpegs = [
            encode_jpeg(draw_image(CLASSES[i % len(CLASSES)], rng))
            for i in track_progress(range(bench.images), "Generating images", bench.images)
        ]
    else:
        source = DecodedImages(open_dataset(bench.data), "train", STORED)
        jpegs = [source.record(i).image for i in range(min(bench.images, len(source)))]
    (folder / "files").mkdir()
    with (
        open_partial_dataset(folder / "jpeg", PreparePlan(["any"], STORED)) as jpeg_dataset,
        open_partial_dataset(folder / "raw", PreparePlan(["any"], STORED, "raw")) as raw_dataset,
    ):
        with jpeg_dataset.shard_writer("train", 0) as jpeg, raw_dataset.shard_writer("train", 0) as raw:
            for i, data in enumerate(jpegs):
                pixels = decode_jpeg(data, STORED)
                jpeg.write(Record(data, 0, str(i)), pixels)
                raw.write(Record(pixels.tobytes(), 0, str(i)), pixels)
                (folder / "files" / f"{i:06}.jpg").write_bytes(data)
        for name, dataset in (("jpeg", jpeg_dataset), ("raw", raw_dataset)):
            dataset.finish(folder / name, {"train": 1})


def own_loader(folder: Path, encoding: str, loader_options: LoaderOptions) -> Iterator[Any]:
    """Return an iterator over batches of this data pipeline."""
    return training_batches(
        open_dataset(folder / encoding), Augmentation(), input_size=SIZE, batch_size=BATCH, seed=0, loader_options=loader_options
    )


def make_loader(name: str, folder: Path) -> Iterator[Any]:
    """Return an iterator over the batches of the loader with a name in `OWN` or `other_loaders`."""
    return own_loader(folder, *OWN[name]) if name in OWN else other_loaders()[0][name](folder)


def version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def images_per_second(name: str, folder: Path, batches: int) -> float:
    """Measure the throughput of a loader after one warm-up epoch, in images/s.

    Args:
      name: name of the loader; with the prefix "null ", the JPEG decoder is replaced by one that does nothing.
      folder: folder of the benchmark.
      batches: number of timed batches.
    """
    if name.startswith("null "):
        with null_decoder():
            return images_per_second(name.removeprefix("null "), folder, 4 * batches)
    stream = make_loader(name, folder)
    warm_up = len(list((folder / "files").iterdir())) // BATCH + 4  # one epoch, to fill the page cache and the memory cache
    for _ in range(warm_up):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * BATCH / (time.perf_counter() - start)


def stages(folder: Path, encoding: str) -> dict[str, int]:
    """Measure the throughput of each pipeline stage in isolation, in images/s on one core."""
    dataset, batch = open_dataset(folder / encoding), np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
    images = DecodedImages(dataset, "train", STORED)
    records = [images.record(i) for i in range(BATCH)]
    params = random_params(
        Augmentation(), len(images), border=STORED - SIZE, colors=dataset.color_components, batch_size=BATCH, seed=0
    )
    first = params[0]
    assert first is not None
    crops = list(zip(first.position.tolist(), first.flipped.tolist(), batch, strict=True))
    pixels = images.decode(records[0])

    def each(work: Callable[[Any], Any], items: list[Any]) -> Callable[[], None]:
        def run() -> None:
            for item in items:
                work(item)  # the result is freed immediately, as in the pipeline

        return run

    def crop_batch() -> None:
        buffer = CropBuffer(STORED, SIZE)
        rows, words = buffer.rows_of(batch), buffer.words_of(batch)
        for i, ((top, left), flipped, out) in enumerate(crops):
            if encoding == "raw":
                copy_crop(pixels, top, left, flipped, out)
            elif flipped:
                words[i] = buffer.flipped[top, left]
            else:
                rows[i] = buffer.crops[top, left]

    work = {
        "order": lambda: image_indices(0, len(images), batch_size=BATCH, seed=0),
        "order and draw": lambda: params[0],
        "read": each(images.record, first.indices.tolist()),
        "decode": each(images.decode, records),
        "crop and flip": crop_batch,
    }
    return {name: round(BATCH / min(_seconds(run) for _ in range(15))) for name, run in work.items()}


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory(folder: Path, batches: int) -> dict[str, list[int]]:
    """Record the resident memory of this process in MiB, about twenty times while it loads batches."""
    stream, points = make_loader(DEFAULT, folder), {"after_batches": [], "megabytes": []}
    for i in range(1, batches + 1):
        next(stream)
        if i % max(1, batches // 20) == 0:
            points["after_batches"].append(i)
            points["megabytes"].append(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20)
    return points


def in_process(*arguments: Any) -> Any:
    """Run `measure` in a new process, and return its result."""
    # DataLoader warns if it has more workers than cores.
    command = [sys.executable, "-W", "ignore", __file__, "--only", *map(str, arguments)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main(bench: Bench) -> None:
    """Run all measurements; write and print the results."""
    others, not_measured = other_loaders()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_images(folder, bench)
        null = [f"null alexnet_jax {n} threads" for n in THREADS]
        rates: dict[str, list[float]] = {name: [] for name in (*OWN, *null, *others)}
        lock: list[float] = []
        for _ in range(bench.rounds):
            for name, measured in rates.items():
                measured.append(in_process("rate", name, folder, bench.batches))
                console.print(f"{name}: {measured[-1]:.0f} images/s")
            lock.append(in_process("lock", folder / "jpeg", 200))
            console.print(f"time under the interpreter lock: {lock[-1]:.1f} microseconds per image")
        per_core = {encoding: in_process("stages", encoding, folder) for encoding in ("jpeg", "raw")}
        record_memory = bench.memory_batches and STATM.exists()
        memory_use = in_process("memory", folder, bench.memory_batches) if record_memory else None
        size = statistics.mean(file.stat().st_size for file in (folder / "files").iterdir())
    median = {name: round(statistics.median(measured)) for name, measured in rates.items()}
    per_core["jpeg"]["all stages"] = median["alexnet_jax 1 threads"]
    microseconds = {name: 1e6 / rate for name, rate in per_core["jpeg"].items()}
    kinds = dict.fromkeys(name.partition(" ")[0] for name in others)  # without the number of workers
    result = {
        "images": f"{'synthetic' if bench.data is None else bench.data.name}, {size / 1000:.0f} kB each as JPEG",
        "cores": CORES,
        "rounds": bench.rounds,
        "images_per_second": median,
        "ratios": {
            **{kind: ratio(rates, DEFAULT, best(median, kind)) for kind in kinds},
            "jpeg of raw": ratio(rates, DEFAULT, "alexnet_jax raw"),
        },
        "lock_microseconds": round(statistics.median(lock), 2),
        "null_decoder_microseconds": {str(n): round(1e6 / median[name], 1) for n, name in zip(THREADS, null, strict=True)},
        "images_per_second_per_core": {"all cores busy": round(median[DEFAULT] / CORES), **per_core},
        "memory": memory_use,
        "not_measured": not_measured,
        "versions": {name: version(name) for name in PACKAGES},
        "notes": "microseconds per image on one core: " + ", ".join(f"{name} {time:.1f}" for name, time in microseconds.items()),
    }
    print(json.dumps(result))
    write_json(bench.out, result)


def best(median: dict[str, int], kind: str) -> str:
    """Return the name of the fastest loader whose name starts with `kind`."""
    return max((name for name in median if name.startswith(kind)), key=lambda name: median[name])


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median over rounds of the ratio of two loaders' throughputs.

    The ratio is taken within each round, in which other load on the machine affects both loaders similarly.
    """
    return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 2)


def measure(what: str, *arguments: str) -> Any:
    """Run one measurement in this process: "images", "rate", "lock", "stages" or "memory"."""
    if what == "images":
        return make_images(Path(arguments[0]), Bench(images=int(arguments[1])))
    if what == "rate":
        return images_per_second(arguments[0], Path(arguments[1]), int(arguments[2]))
    if what == "lock":
        return lock_microseconds(Path(arguments[0]), BATCH, int(arguments[1]))
    if what == "stages":
        return stages(Path(arguments[1]), arguments[0])
    return memory(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    with exit_on_error():
        if sys.argv[1:2] == ["--only"]:
            print(json.dumps(measure(*sys.argv[2:])))
        elif find_spec("torch") is None:
            raise UserError("PyTorch is not installed: run make bench-data, which installs it")
        else:
            main(tyro.cli(Bench))
