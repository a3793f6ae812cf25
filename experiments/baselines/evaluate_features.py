"""Evaluation of an image classifier of fixed features and linear support vector machines on random splits of a data set.

Features are computed once for all images, so what they are learned from must not contain test images: it is a random subset of
the images that are training images in every split. Features are stored part by part, and the same command resumes after an
interruption.
"""

import hashlib
import json
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import joblib  # type: ignore[reportMissingImports]
import linear_svm
import numpy as np
import tyro
from image_pool import ImagePool, Split, open_source, splits_of
from jaxtyping import Float32, UInt8
from study import ErrorLists, Study, describe, write_result

from alexnet_jax.console import console, track_progress
from alexnet_jax.errors import UserError
from alexnet_jax.files import atomic_write

PART_IMAGES = 256
"""Images per file of features."""
VOCABULARY_IMAGES = 1000
"""Maximum number of images from which features are learned."""


class Features(Protocol):
    """Features of images, which are learned from some of them. Its dataclass fields are the settings."""

    @property
    def name(self) -> str:
        """Name of the method, as in file names."""
        ...

    def learn(self, images: Iterator[UInt8[np.ndarray, "height width"]]) -> Any:
        """Return what is learned from gray images, such as a dictionary."""
        ...

    def encode(self, gray: UInt8[np.ndarray, "height width"], vocabulary: Any) -> Float32[np.ndarray, " features"]:
        """Return the features of an image, of norm 1."""
        ...


@dataclass
class Timer:
    """Wall time and CPU time of the stages of an evaluation, over all interruptions."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start, cpu_start = time.perf_counter(), time.process_time()
        yield
        self.add(name, time.perf_counter() - start, time.process_time() - cpu_start)

    def add(self, name: str, seconds: float, cpu_seconds: float) -> None:
        """Add a time to a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu_seconds


class StoredFeatures:
    """Features of all images, in half precision in one file per part of `PART_IMAGES` images."""

    def __init__(self, folder: Path, num_images: int):
        self._folder = folder
        self._starts = range(0, num_images, PART_IMAGES)
        self._num_images = num_images

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, part: int) -> Float32[np.ndarray, "images features"]:
        """Return the features of the images of a part."""
        return np.load(self.file(part)).astype(np.float32)

    def file(self, part: int) -> Path:
        """Return the file of a part."""
        return self._folder / f"features-{part:05}.npy"

    def images(self, part: int) -> range:
        """Return the indices of the images of a part."""
        start = self._starts[part]
        return range(start, min(start + PART_IMAGES, self._num_images))


def evaluate(features: Features, study: Study) -> dict[str, Any]:
    """Evaluate features on all splits, and return the result, which is also written after every split."""
    pool = ImagePool(open_source(study.data, study.data_dir, whole=study.whole, classes=study.classes))
    splits = splits_of(pool, study.images, study.seeds)
    settings = {field: value for field, value in asdict(features).items() if field != "study"}  # pyright: ignore[reportArgumentType]
    folder = study.runs_dir / "baselines" / f"{features.name}-{_digest(pool, splits, settings)}"
    folder.mkdir(parents=True, exist_ok=True)
    timer = _read_times(folder)
    vocabulary = _learn(features, pool, splits, folder, timer)
    stored = _encode(features, vocabulary, pool, folder, timer)
    products = _inner_products(stored, folder, timer)
    errors, costs = ErrorLists(), []
    result: dict[str, Any] = {}
    for seed, split in zip(study.seeds, splits, strict=False):
        with timer.stage("classify"):
            costs.append(linear_svm.choose_cost(products, pool.labels, split.train, seed))
            values = linear_svm.decision_values(products, pool.labels, split, costs[-1])
            errors.add(linear_svm.count_errors(pool.labels[split.test], values))
        result = {
            "method": features.name,
            **describe(study, pool, splits[: len(costs)]),
            **asdict(errors),
            "cost": costs,
            "settings": settings,
            "dimensions": int(np.load(stored.file(0), mmap_mode="r").shape[1]),
            "vocabulary_images": len(_vocabulary_images(splits)),
            "seconds": {stage: round(seconds, 1) for stage, seconds in timer.seconds.items()},
            "cpu_seconds": {stage: round(seconds, 1) for stage, seconds in timer.cpu_seconds.items()},
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("opencv-python-headless", "scikit-image", "scikit-learn", "numpy")},
        }
        write_result(result, study.to)
        console.print(f"{features.name}, split {len(costs)}: {errors}, C = {costs[-1]:g}")
    return result


def main(method: type[Any]) -> None:
    """Evaluate the features that the command line describes.

    Args:
      method: dataclass of features, with a field `study`.
    """
    features = tyro.cli(method)
    print(json.dumps(evaluate(features, features.study)))


def _digest(pool: ImagePool, splits: list[Split], settings: dict[str, Any]) -> str:
    """Return a digest of what the features depend on: images, splits and settings."""
    digest = hashlib.sha256(json.dumps([settings, pool.names, pool.fingerprint]).encode())
    for split in splits:
        digest.update(split.train.tobytes())
    return digest.hexdigest()[:8]


def _vocabulary_images(splits: list[Split]) -> np.ndarray:
    """Return the indices of images to learn features from, in random order.

    Raises:
      UserError: if no image is a training image in every split.
    """
    common = reduce(np.intersect1d, (split.train for split in splits))
    if not len(common):
        raise UserError("no image is a training image in all splits: pass fewer --seeds or more --images")
    return np.random.default_rng(0).permutation(common)[:VOCABULARY_IMAGES]


def _learn(features: Features, pool: ImagePool, splits: list[Split], folder: Path, timer: Timer) -> Any:
    file = folder / "vocabulary.joblib"
    if not file.exists():
        indices = _vocabulary_images(splits)
        images = (pool.gray(int(index)) for index in track_progress(indices, "Sampling descriptors", len(indices)))
        with timer.stage("learn"):
            vocabulary = features.learn(images)
        joblib.dump(vocabulary, file.with_suffix(".unfinished"))
        file.with_suffix(".unfinished").rename(file)
        _write_times(folder, timer)
    return joblib.load(file)


def _encode(features: Features, vocabulary: Any, pool: ImagePool, folder: Path, timer: Timer) -> StoredFeatures:
    stored = StoredFeatures(folder, len(pool))
    missing = [part for part in range(len(stored)) if not stored.file(part).exists()]
    for part in track_progress(missing, f"Encoding {PART_IMAGES} images each", len(missing), "part"):
        with timer.stage("encode"):
            codes = np.stack([features.encode(pool.gray(index), vocabulary) for index in stored.images(part)])
        _save(stored.file(part), codes.astype(np.float16))
        _write_times(folder, timer)
    return stored


def _inner_products(stored: StoredFeatures, folder: Path, timer: Timer) -> np.ndarray:
    file = folder / "inner_products.npy"
    if not file.exists():
        with timer.stage("inner products"):
            products = linear_svm.inner_products(stored.read, len(stored))
        _save(file, products)
        _write_times(folder, timer)
    return np.load(file)


def _save(file: Path, array: np.ndarray) -> None:
    """Write an array to a file that exists only when it is complete."""
    unfinished = file.with_suffix(".unfinished")
    with open(unfinished, "wb") as opened:
        np.save(opened, array)
    unfinished.rename(file)


def _read_times(folder: Path) -> Timer:
    file = folder / "times.json"
    return Timer(**json.loads(file.read_text())) if file.exists() else Timer()


def _write_times(folder: Path, timer: Timer) -> None:
    atomic_write(folder / "times.json", json.dumps(asdict(timer)).encode())
