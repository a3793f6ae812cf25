"""How fast images become batches, against PyTorch's DataLoader on the same images in the same run.

    make bench-data
    make bench-data ARGS="--data data/imagenet --rounds 9 --memory-batches 20000"

The work: a 256-pixel JPEG decoded, a random crop of 224 pixels, flipped or not, in a batch of 128, uint8. Every reader runs
in a process of its own, one after another, several rounds; the figures are medians of images per second. PyTorch reads the
JPEGs from files, with several numbers of workers, and is compared at its best one. The images are drawn (`data/synthetic.py`)
unless --data names a prepared set. The last line is one JSON object.
"""

# pyright: reportMissingImports=false
# PyTorch and TensorFlow are not part of the development set-up: make bench-data installs PyTorch.
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
from alexnet_jax.data.images import decode_jpeg, encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation, draw_augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.pipeline.crops import copy_crop, copy_reversed
from alexnet_jax.data.pipeline.loading import DecodedImages, TrainingBatches
from alexnet_jax.data.prepare.shards import new_dataset
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.data.sources.synthetic import CLASSES, draw_image
from alexnet_jax.errors import UserError

RESULT = Path(__file__).parents[1] / "results" / "data.json"
STORED, SIZE, BATCH = 256, 224, 128
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = sorted({CORES, CORES + 1, 2 * CORES})
STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Bench:
    """Images per second of the pipeline and of others.

    Attributes:
      data: prepared data set of 256-pixel JPEGs; None draws some.
      images: how many of them to use.
      rounds: of every reader.
      batches: timed in each round.
      memory_batches: read in a row while memory is watched; 0 leaves that out.
      out: where the result goes.
    """

    data: Path | None = None
    images: int = 2000
    rounds: int = 5
    batches: int = 60
    memory_batches: int = 2000
    out: Path = RESULT


def make_images(folder: Path, bench: Bench) -> None:
    """Writes the same images three times: prepared as JPEG, prepared raw, and a JPEG file each."""
    rng = np.random.default_rng(0)
    if bench.data is None:
        jpegs = [
            encode_jpeg(draw_image(CLASSES[i % len(CLASSES)], rng))
            for i in track_progress(range(bench.images), "Drawing", bench.images)
        ]
    else:
        source = DecodedImages(open_dataset(bench.data), "train", STORED)
        jpegs = [source.record(i).image for i in range(min(bench.images, len(source)))]
    (folder / "files").mkdir()
    with (
        new_dataset(folder / "jpeg", ["any"], size=STORED) as jpeg,
        new_dataset(folder / "raw", ["any"], size=STORED, encoding="raw") as raw,
    ):
        for i, data in enumerate(jpegs):
            pixels = decode_jpeg(data, STORED)
            jpeg.write("train", Record(data, 0, str(i)), pixels)
            raw.write("train", Record(pixels.tobytes(), 0, str(i)), pixels)
            (folder / "files" / f"{i:06}.jpg").write_bytes(data)


def ours(folder: Path, encoding: str, readers: LoaderOptions) -> Iterator[Any]:
    return training_batches(
        open_dataset(folder / encoding), Augmentation(), input_size=SIZE, batch_size=BATCH, seed=0, readers=readers
    )


def torch_loader(folder: Path, decoder: str, workers: int) -> Iterator[Any]:
    """PyTorch's DataLoader as its users write it, without the pause between epochs that it would have."""
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
            part = torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB")[top : top + SIZE, left : left + SIZE])
            return (part.flip(1) if flipped else part), 0

    endless = RandomSampler(files, replacement=True, num_samples=10**9)
    return iter(DataLoader(Crops(), BATCH, sampler=endless, num_workers=workers))


def tf_data(folder: Path) -> Iterator[Any]:
    import tensorflow as tf

    def crop(file: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        return tf.image.random_flip_left_right(tf.image.random_crop(image, (SIZE, SIZE, 3)))

    files = tf.data.Dataset.list_files(str(folder / "files" / "*.jpg")).repeat()
    return iter(files.map(crop, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE))


NOT_KEPT = LoaderOptions(memory_share=0.0)


def reader(name: str, folder: Path) -> Iterator[Any]:
    """The stream of batches called `name`."""
    kind, _, detail = name.partition(" ")
    if kind.startswith("torch"):
        return torch_loader(folder, kind.removeprefix("torch_"), int(detail.split()[0]))
    if kind == "tf.data":
        return tf_data(folder)
    settings = {
        "": ("jpeg", NOT_KEPT),
        "raw": ("raw", NOT_KEPT),
        "in memory": ("jpeg", LoaderOptions(memory_share=1.0)),
        "1 thread": ("jpeg", replace(NOT_KEPT, threads=1)),
        f"{CORES} processes": ("jpeg", LoaderOptions(processes=CORES)),
    }
    return ours(folder, *settings[detail])


def readers() -> list[str]:
    ours = ["alexnet_jax", *(f"alexnet_jax {how}" for how in ("raw", "in memory", "1 thread", f"{CORES} processes"))]
    torch = [f"torch_{decoder} {workers} workers" for workers in WORKERS for decoder in ("pillow", "simplejpeg")]
    return [*ours, *torch, *(["tf.data"] if find_spec("tensorflow") else [])]


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def images_per_second(name: str, folder: Path, batches: int) -> float:
    stream = reader(name, folder)
    warm_up = len(list((folder / "files").iterdir())) // BATCH + 4  # an epoch: pages are read, memory is filled
    for _ in range(warm_up):
        next(stream)
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * BATCH / (time.perf_counter() - began)


def stages(folder: Path, encoding: str) -> dict[str, int]:
    """Images per second in each stage by itself, on one core."""
    dataset, batch = open_dataset(folder / encoding), np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
    images = DecodedImages(dataset, "train", STORED)
    records = [images.record(i) for i in range(BATCH)]
    crop, _ = draw_augmentation(Augmentation(), dataset.color_components, border=32, images=BATCH, seed=0, step=0)
    places = list(zip(crop.position.tolist(), crop.flipped.tolist(), batch, strict=True))
    pixels = images.pixels(records[0])

    batches = TrainingBatches(images, Augmentation(), dataset.color_components, SIZE, BATCH, 0, slice(None))

    def each(work: Callable[[Any], Any], things: list[Any]) -> Callable[[], None]:
        def run() -> None:
            for thing in things:
                work(thing)  # and let go of, as the pipeline does

        return run

    def cut() -> None:
        for (top, left), flipped, out in places:
            if flipped and encoding == "jpeg":
                copy_reversed(pixels, top, left, out)
            else:
                copy_crop(pixels, top, left, flipped, out)

    work = {
        "order": lambda: batches.order(0),
        "draw": lambda: draw_augmentation(Augmentation(), dataset.color_components, border=32, images=BATCH, seed=0, step=0),
        "read": each(images.record, batches.order(0)),
        "decode": each(images.pixels, records),
        "crop and mirror": cut,
    }
    return {name: round(BATCH / min(_seconds(run) for _ in range(15))) for name, run in work.items()}


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory(folder: Path, batches: int) -> dict[str, list[int]]:
    """Resident memory of the process that reads, MB, at twenty points of a long run."""
    stream, points = reader("alexnet_jax", folder), {"after_batches": [], "megabytes": []}
    for i in range(1, batches + 1):
        next(stream)
        if i % max(1, batches // 20) == 0:
            points["after_batches"].append(i)
            points["megabytes"].append(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20)
    return points


def in_process(*arguments: Any) -> Any:
    """What this program prints when called so: each measurement starts afresh."""
    # Python's warnings are not for here: DataLoader gives one for more workers than cores.
    command = [sys.executable, "-W", "ignore", __file__, "--only", *map(str, arguments)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_images(folder, bench)
        rates: dict[str, list[float]] = {name: [] for name in readers()}
        for _ in range(bench.rounds):
            for name, found in rates.items():
                found.append(in_process("rate", name, folder, bench.batches))
                console.print(f"{name}: {found[-1]:.0f} images/s")
        per_core = {encoding: in_process("stages", encoding, folder) for encoding in ("jpeg", "raw")}
        watch = bench.memory_batches and STATM.exists()
        watched = in_process("memory", folder, bench.memory_batches) if watch else None
        size = statistics.mean(file.stat().st_size for file in (folder / "files").iterdir())
    median = {name: round(statistics.median(found)) for name, found in rates.items()}
    per_core["jpeg"]["whole"] = median["alexnet_jax 1 thread"]
    microseconds = {name: 1e6 / rate for name, rate in per_core["jpeg"].items()}
    result = {
        "images": f"{'drawn' if bench.data is None else bench.data.name}, {size / 1000:.0f} kB each as JPEG",
        "cores": CORES,
        "rounds": bench.rounds,
        "images_per_second": median,
        "images_per_second_per_core": {"all cores busy": round(median["alexnet_jax"] / CORES), **per_core},
        "memory": watched,
        "tf_data": median.get("tf.data", "absent: TensorFlow is not installed"),
        "versions": {name: version(name) for name in ("grain", "simplejpeg", "pillow", "torch", "numpy")},
        "notes": "microseconds an image on one core: " + ", ".join(f"{name} {time:.1f}" for name, time in microseconds.items()),
        "ratio_vs_torch_pillow": ratio(rates, "alexnet_jax", best(median, "torch_pillow")),
        "ratio_vs_torch_simplejpeg": ratio(rates, "alexnet_jax", best(median, "torch_simplejpeg")),
        "raw_vs_jpeg": ratio(rates, "alexnet_jax raw", "alexnet_jax"),
    }
    bench.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def best(median: dict[str, int], kind: str) -> str:
    """The fastest reader of a kind, whatever its number of workers."""
    return max((name for name in median if name.startswith(kind)), key=lambda name: median[name])


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """Median over the rounds: what else the machine does in a round slows both."""
    return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 2)


def only(what: str, *arguments: str) -> Any:
    """One measurement, in this process."""
    if what == "images":
        return make_images(Path(arguments[0]), Bench(images=int(arguments[1])))
    if what == "rate":
        return images_per_second(arguments[0], Path(arguments[1]), int(arguments[2]))
    if what == "stages":
        return stages(Path(arguments[1]), arguments[0])
    return memory(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        print(json.dumps(only(*sys.argv[2:])))
    elif find_spec("torch") is None:
        sys.exit("error: PyTorch is not installed: make bench-data installs it")
    else:
        try:
            main(tyro.cli(Bench))
        except UserError as error:
            sys.exit(f"error: {error}")
