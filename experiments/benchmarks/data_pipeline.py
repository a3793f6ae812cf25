"""Benchmark of the data pipeline against PyTorch's DataLoader on the same images.

    make bench-data
    make bench-data ARGS="--data data/imagenet --rounds 9 --memory-batches 20000"

Each loader decodes JPEGs of 256x256 pixels, takes a random 224x224 crop with a random horizontal flip, and returns uint8 batches
of 128 images. The loaders run one after another, each in its own process, for several rounds; results are medians in images per
second. PyTorch reads JPEG files with several numbers of workers, of which the fastest is compared. The images are synthetic
(`alexnet_jax.data.sources.synthetic`) unless --data names a prepared data set. The last line of the output is one JSON object,
which is also written to experiments/results/data.json.
"""

# pyright: reportMissingImports=false
# PyTorch and TensorFlow are not development dependencies; make bench-data installs PyTorch.
import importlib.metadata
import io
import json
import os
import random
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

from alexnet_jax.console import console, track_progress
from alexnet_jax.cpus import available_cpus
from alexnet_jax.data.images import decode_jpeg, encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, image_indices, random_params, training_batches
from alexnet_jax.data.pipeline.copy_crop import copy_crop, copy_flipped_crop_bgr
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.shards import create_dataset
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.data.sources.synthetic import CLASSES, draw_image
from alexnet_jax.errors import UserError

RESULT = Path(__file__).parents[1] / "results" / "data.json"
STORED, SIZE, BATCH = 256, 224, 128
CORES = available_cpus()
WORKERS = sorted({CORES, CORES + 1, 2 * CORES})
STATM = Path("/proc/self/statm")


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
    batches: int = 60
    memory_batches: int = 2000
    out: Path = RESULT


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
        create_dataset(folder / "jpeg", ["any"], size=STORED) as jpeg,
        create_dataset(folder / "raw", ["any"], size=STORED, encoding="raw") as raw,
    ):
        for i, data in enumerate(jpegs):
            pixels = decode_jpeg(data, STORED)
            jpeg.write("train", Record(data, 0, str(i)), pixels)
            raw.write("train", Record(pixels.tobytes(), 0, str(i)), pixels)
            (folder / "files" / f"{i:06}.jpg").write_bytes(data)


def own_loader(folder: Path, encoding: str, loader_options: LoaderOptions) -> Iterator[Any]:
    """Return an iterator over batches of this data pipeline."""
    return training_batches(
        open_dataset(folder / encoding), Augmentation(), input_size=SIZE, batch_size=BATCH, seed=0, loader_options=loader_options
    )


def torch_loader(folder: Path, decoder: str, workers: int) -> Iterator[Any]:
    """Return an iterator over batches of PyTorch's DataLoader, in a single long epoch so that workers are not restarted."""
    import simplejpeg
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, RandomSampler

    files = sorted(str(file) for file in (folder / "files").iterdir())

    class Crops(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            data = Path(files[index]).read_bytes()
            top, left, flipped = random.randrange(32), random.randrange(32), random.random() < 0.5
            if decoder == "pillow":
                image = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + SIZE, top + SIZE))
                if flipped:
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                return torch.from_numpy(np.array(image)), 0
            crop = torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB")[top : top + SIZE, left : left + SIZE])
            return (crop.flip(1) if flipped else crop), 0

    endless = RandomSampler(files, replacement=True, num_samples=10**9)
    return iter(DataLoader(Crops(), BATCH, sampler=endless, num_workers=workers))


def tf_data(folder: Path) -> Iterator[Any]:
    """Return an iterator over batches of tf.data."""
    import tensorflow as tf

    def crop(file: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        return tf.image.random_flip_left_right(tf.image.random_crop(image, (SIZE, SIZE, 3)))

    files = tf.data.Dataset.list_files(str(folder / "files" / "*.jpg")).repeat()
    return iter(files.map(crop, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE))


UNCACHED = LoaderOptions(memory_fraction=0.0)


def make_loader(name: str, folder: Path) -> Iterator[Any]:
    """Return an iterator over the batches of the loader with a name in `loader_names`."""
    kind, _, detail = name.partition(" ")
    if kind.startswith("torch"):
        return torch_loader(folder, kind.removeprefix("torch_"), int(detail.split()[0]))
    if kind == "tf.data":
        return tf_data(folder)
    settings = {
        "": ("jpeg", UNCACHED),
        "raw": ("raw", UNCACHED),
        "in memory": ("jpeg", LoaderOptions(memory_fraction=1.0)),
        "1 thread": ("jpeg", replace(UNCACHED, threads=1)),
        f"{CORES} processes": ("jpeg", LoaderOptions(workers=CORES)),
    }
    return own_loader(folder, *settings[detail])


def loader_names() -> list[str]:
    """Return the names of the loaders that are available."""
    variants = ("raw", "in memory", "1 thread", f"{CORES} processes")
    ours = ["alexnet_jax", *(f"alexnet_jax {variant}" for variant in variants)]
    torch = [f"torch_{decoder} {workers} workers" for workers in WORKERS for decoder in ("pillow", "simplejpeg")]
    return [*ours, *torch, *(["tf.data"] if find_spec("tensorflow") else [])]


def version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def images_per_second(name: str, folder: Path, batches: int) -> float:
    """Measure the throughput of a loader after one warm-up epoch, in images/s."""
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
        for (top, left), flipped, out in crops:
            if flipped and encoding == "jpeg":
                copy_flipped_crop_bgr(pixels, top, left, out)
            else:
                copy_crop(pixels, top, left, flipped, out)

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
    stream, points = make_loader("alexnet_jax", folder), {"after_batches": [], "megabytes": []}
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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_images(folder, bench)
        rates: dict[str, list[float]] = {name: [] for name in loader_names()}
        for _ in range(bench.rounds):
            for name, measured in rates.items():
                measured.append(in_process("rate", name, folder, bench.batches))
                console.print(f"{name}: {measured[-1]:.0f} images/s")
        per_core = {encoding: in_process("stages", encoding, folder) for encoding in ("jpeg", "raw")}
        record_memory = bench.memory_batches and STATM.exists()
        memory_use = in_process("memory", folder, bench.memory_batches) if record_memory else None
        size = statistics.mean(file.stat().st_size for file in (folder / "files").iterdir())
    median = {name: round(statistics.median(measured)) for name, measured in rates.items()}
    per_core["jpeg"]["all stages"] = median["alexnet_jax 1 thread"]
    microseconds = {name: 1e6 / rate for name, rate in per_core["jpeg"].items()}
    result = {
        "images": f"{'synthetic' if bench.data is None else bench.data.name}, {size / 1000:.0f} kB each as JPEG",
        "cores": CORES,
        "rounds": bench.rounds,
        "images_per_second": median,
        "images_per_second_per_core": {"all cores busy": round(median["alexnet_jax"] / CORES), **per_core},
        "memory": memory_use,
        "tf_data": median.get("tf.data", "not measured: TensorFlow is not installed"),
        "versions": {name: version(name) for name in ("grain", "simplejpeg", "pillow", "torch", "numpy")},
        "notes": "microseconds per image on one core: " + ", ".join(f"{name} {time:.1f}" for name, time in microseconds.items()),
        "ratio_vs_torch_pillow": ratio(rates, "alexnet_jax", best(median, "torch_pillow")),
        "ratio_vs_torch_simplejpeg": ratio(rates, "alexnet_jax", best(median, "torch_simplejpeg")),
        "raw_vs_jpeg": ratio(rates, "alexnet_jax raw", "alexnet_jax"),
    }
    bench.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def best(median: dict[str, int], kind: str) -> str:
    """Return the name of the fastest loader whose name starts with `kind`."""
    return max((name for name in median if name.startswith(kind)), key=lambda name: median[name])


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Return the median over rounds of the ratio of two loaders' throughputs.

    The ratio is taken within each round, in which other load on the machine affects both loaders similarly.
    """
    return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 2)


def measure(what: str, *arguments: str) -> Any:
    """Run one measurement in this process: "images", "rate", "stages" or "memory"."""
    if what == "images":
        return make_images(Path(arguments[0]), Bench(images=int(arguments[1])))
    if what == "rate":
        return images_per_second(arguments[0], Path(arguments[1]), int(arguments[2]))
    if what == "stages":
        return stages(Path(arguments[1]), arguments[0])
    return memory(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        print(json.dumps(measure(*sys.argv[2:])))
    elif find_spec("torch") is None:
        sys.exit("error: PyTorch is not installed; run make bench-data, which installs it")
    else:
        try:
            main(tyro.cli(Bench))
        except UserError as error:
            sys.exit(f"error: {error}")
