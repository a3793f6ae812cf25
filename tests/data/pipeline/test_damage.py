"""Tests of damage that does not change the size of a file: the file and the cure are named, also while training reads it."""

from itertools import islice

import numpy as np
import pytest

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import evaluation_batches, training_batches
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError
from tests.dataset_writer import create_dataset


@pytest.fixture
def dataset(tmp_path, rng):
    with create_dataset(tmp_path / "set", ["a", "b"], size=32, encoding="raw") as writer:
        for split in ("train", "test"):
            for i in range(40):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                writer.write(split, Record(pixels.tobytes(), i % 2, f"{i}.png"), pixels)
    return open_dataset(tmp_path / "set")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("offset", [0.1, 0.5, 0.9])
def test_damaged_shard(dataset, split, offset):
    (file,) = dataset.path.glob(f"{split}-*")
    content = bytearray(file.read_bytes())
    used = len(bytes(content).rstrip(b"\0"))
    content[int(offset * used) : int(offset * used) + 100] = bytes(100)
    file.write_bytes(content)
    dataset = open_dataset(dataset.path)  # the size is the same
    if split == "train":
        stream = training_batches(dataset, Augmentation(image_size=32), input_size=28, batch_size=40, seed=0)
    else:
        stream = evaluation_batches(dataset, split, image_size=32, input_size=28, batch_size=8)
    with pytest.raises(UserError, match=rf"{file.name} is damaged at image .*--verify {dataset.path}, delete it") as error:
        list(islice(stream, 5))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, 300, -1, 99.5])
def test_damaged_mean_image(dataset, value):
    mean = dataset.mean_image
    mean[3, 4] = value
    np.save(dataset.path / "mean_image.npy", mean)
    with pytest.raises(UserError, match=r"mean_image.npy .*delete .* and prepare it again") as error:
        open_dataset(dataset.path)
    assert "\n" not in str(error.value)


def test_missing_split_is_named(dataset):
    with pytest.raises(UserError, match="has no validation images, only train, test: choose one of these splits"):
        evaluation_batches(dataset, "validation", image_size=32, input_size=28, batch_size=8)
