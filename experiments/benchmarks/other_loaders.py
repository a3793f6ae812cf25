"""Loaders of other libraries for `data_pipeline.py`: PyTorch's DataLoader, SPDL and tf.data.

Each reads JPEG files and does the same work as this package's pipeline. Libraries that are not installed are left out:

    pip install torchvision --extra-index-url https://download.pytorch.org/whl/cpu  # its JPEG decoder in PyTorch's DataLoader
    pip install spdl tensorflow-cpu

SPDL's own decoder is not measured, since it needs FFmpeg's shared libraries; SPDL's pipeline of threads decodes with simplejpeg.
"""

# pyright: reportMissingImports=false
# None of these libraries is a development dependency; make bench-data installs PyTorch.
import io
import random
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from alexnet_jax.cpus import available_cpus

STORED, SIZE, BATCH = 256, 224, 128
CORES = available_cpus()
WORKERS = (CORES, CORES + 1)
"""Numbers of worker processes of PyTorch's DataLoader; the fastest is compared."""


def other_loaders() -> tuple[dict[str, Callable[[Path], Iterator[Any]]], dict[str, str]]:
    """Return functions that create the iterators over batches, by name, and the reason for each loader that is left out."""
    loaders: dict[str, Callable[[Path], Iterator[Any]]] = {}
    missing: dict[str, str] = {}
    for decoder, package in (("pillow", "torch"), ("simplejpeg", "torch"), ("torchvision", "torchvision")):
        if find_spec(package) is None:
            missing[f"torch_{decoder}"] = f"not measured: {package} is not installed"
            continue
        for workers in WORKERS:
            name = f"torch_{decoder} {workers} workers"
            loaders[name] = lambda folder, decoder=decoder, workers=workers: torch_loader(folder, decoder, workers)
    for name, package, loader in (("spdl_simplejpeg", "spdl", spdl_loader), ("tf.data", "tensorflow", tf_data)):
        if find_spec(package) is None:
            missing[name] = f"not measured: {package} is not installed"
        else:
            loaders[name] = loader
    return loaders, missing


def image_files(folder: Path) -> list[str]:
    """Return the paths of the JPEG files of the benchmark."""
    return sorted(str(file) for file in (folder / "files").iterdir())


def simplejpeg_crop(data: bytes) -> np.ndarray:
    """Decode a JPEG and return a random crop, flipped with probability 1/2."""
    top, left = random.randrange(STORED - SIZE), random.randrange(STORED - SIZE)
    crop = simplejpeg.decode_jpeg(data, "RGB")[top : top + SIZE, left : left + SIZE]
    return crop[:, ::-1] if random.random() < 0.5 else crop


def torch_loader(folder: Path, decoder: str, workers: int) -> Iterator[Any]:
    """Return an iterator over batches of PyTorch's DataLoader, in a single long epoch so that workers are not restarted.

    Args:
      folder: folder of the benchmark.
      decoder: "pillow", "simplejpeg" or "torchvision".
      workers: number of worker processes.
    """
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    files = image_files(folder)

    def pillow(data: bytes) -> torch.Tensor:
        top, left = random.randrange(STORED - SIZE), random.randrange(STORED - SIZE)
        image = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + SIZE, top + SIZE))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image))

    def crop_and_flip(image: torch.Tensor) -> torch.Tensor:
        top, left = random.randrange(STORED - SIZE), random.randrange(STORED - SIZE)
        crop = image[top : top + SIZE, left : left + SIZE]
        return crop.flip(1) if random.random() < 0.5 else crop

    def torchvision(data: bytes) -> torch.Tensor:
        from torchvision.io import decode_jpeg

        return crop_and_flip(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0))

    decode: Callable[[bytes], torch.Tensor] = {
        "pillow": pillow,
        "simplejpeg": lambda data: crop_and_flip(torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB"))),
        "torchvision": torchvision,
    }[decoder]

    class Crops(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return decode(Path(files[index]).read_bytes()), 0

    endless = RandomSampler(files, replacement=True, num_samples=10**9)
    return iter(DataLoader(Crops(), BATCH, sampler=endless, num_workers=workers))


def spdl_loader(folder: Path) -> Iterator[Any]:
    """Yield batches of a pipeline of SPDL with one thread per core."""
    from spdl.pipeline import PipelineBuilder

    files = image_files(folder)

    def random_files() -> Iterator[str]:
        while True:
            yield random.choice(files)

    builder = PipelineBuilder().add_source(random_files())
    builder = builder.pipe(lambda file: simplejpeg_crop(Path(file).read_bytes()), concurrency=CORES).aggregate(BATCH)
    pipeline = builder.pipe(lambda crops: (np.stack(crops), 0)).add_sink(CORES + 1).build(num_threads=CORES)
    with pipeline.auto_stop():
        yield from pipeline


def tf_data(folder: Path) -> Iterator[Any]:
    """Return an iterator over batches of tf.data, which decodes only the crop."""
    import tensorflow as tf

    def crop(file: Any) -> Any:
        position = tf.random.uniform((2,), 0, STORED - SIZE, tf.int32)
        window = tf.concat([position, (SIZE, SIZE)], 0)
        image = tf.io.decode_and_crop_jpeg(tf.io.read_file(file), window, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.image.random_flip_left_right(tf.ensure_shape(image, (SIZE, SIZE, 3))), 0

    files = tf.data.Dataset.list_files(str(folder / "files" / "*.jpg")).repeat()
    return iter(files.map(crop, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE))
