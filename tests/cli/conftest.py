"""Fixtures of the tests of `evaluate`."""

from dataclasses import replace

import numpy as np
import pytest

from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.training.config import TrainConfig
from tests.cli.bands import CLASSES, COUNTS, create_untrained_run
from tests.conftest import TINY
from tests.dataset_writer import create_dataset


@pytest.fixture(scope="session")
def bands(tmp_path_factory):
    """Data set with different numbers of images per class; the position of a bright band depends on the class."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "bands"
    with create_dataset(path, CLASSES, size=64) as writer:
        for split, counts in COUNTS.items():
            order = rng.permutation(np.repeat(np.arange(7), counts))
            for index, label in enumerate(order.tolist()):
                pixels = rng.integers(0, 150, (64, 64, 3))
                pixels[9 * label : 9 * label + 9] += rng.integers(10, 100)
                pixels = pixels.astype(np.uint8)
                writer.write(split, Record(encode_jpeg(pixels), label, f"{split}/{index}.jpg"), pixels)
    return open_dataset(path)


@pytest.fixture(scope="session")
def band_runs(bands, tmp_path_factory):
    """Runs that subtract the matching crop or the center crop of the mean image, and a run with larger images."""
    folder = tmp_path_factory.mktemp("runs")
    small = {mean: Augmentation(image_size=32, mean=mean) for mean in ("crop", "center")}
    large = replace(TINY, name="large", input_size=37)
    configs = {
        "crop": TrainConfig(TINY, augmentation=small["crop"]),
        "center": TrainConfig(TINY, augmentation=small["center"], seed=1),
        "large": TrainConfig(large, augmentation=Augmentation(image_size=64), seed=2),
    }
    return {name: create_untrained_run(bands, folder / name, config) for name, config in configs.items()}
