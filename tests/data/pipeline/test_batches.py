"""Tests that the stream of batches does not depend on threads, worker processes, hosts or the starting step."""

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import LoaderOptions, evaluation_batches, random_part, training_batches
from alexnet_jax.data.pipeline.transforms import RandomCrop, RandomFlip, Transform
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.errors import UserError
from tests.dataset_writer import create_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "numbers"
    rng = np.random.default_rng(0)
    with create_dataset(path, [str(i) for i in range(50)], size=32) as writer:
        for i in range(50):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)
    return open_dataset(path)


@dataclass(frozen=True)
class TopRow(Transform):
    """Transform of a user: moves some of the crops to the top, and makes them brighter."""

    fraction: float = 0.5

    def random_map(self, element, rng):
        moved = rng.random(len(element.indices)) < self.fraction
        position = np.where(moved[:, None], [0, 1] * element.position, element.position)
        return element._replace(position=position, color_shift=element.color_shift + 10 * moved[:, None])


AUGMENTATION = Augmentation(image_size=32)
CUSTOM = replace(AUGMENTATION, transforms=(*AUGMENTATION.transforms, TopRow()))


def stream(dataset, count, augmentation=AUGMENTATION, **kwargs):
    batches = training_batches(dataset, augmentation, input_size=24, batch_size=8, seed=5, **kwargs)
    return list(itertools.islice(batches, count))


def arrays(batch):
    return [batch.image, batch.label, batch.color_shift, *(batch.crop or ())]


def batches_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


@pytest.mark.parametrize(
    "loader_options", [LoaderOptions(threads=1), LoaderOptions(threads=4), LoaderOptions(threads=2, memory_fraction=0.0)], ids=str
)
def test_stream_is_independent_of_threads(dataset, loader_options):
    assert all(map(batches_equal, stream(dataset, 15), stream(dataset, 15, loader_options=loader_options)))
    assert all(map(batches_equal, stream(dataset, 9, CUSTOM), stream(dataset, 9, CUSTOM, loader_options=loader_options)))


def test_custom_transform_changes_the_batches(dataset):
    for batch, expected in zip(stream(dataset, 9, CUSTOM), stream(dataset, 9), strict=True):
        moved = batch.color_shift[:, 0] > expected.color_shift[:, 0] + 5
        assert batch.crop is not None
        assert expected.crop is not None
        assert [array.dtype for array in arrays(batch)] == [array.dtype for array in arrays(expected)]
        np.testing.assert_array_equal(batch.crop.position[:, 0], np.where(moved, 0, expected.crop.position[:, 0]))
        np.testing.assert_array_equal(batch.label, expected.label)
        assert (batch.image[~moved] == expected.image[~moved]).all()


def test_crop_position_outside_of_the_image_raises(dataset):
    with pytest.raises(UserError, match=r"a transform set a crop position outside of 0 to 8 pixels: clip"):
        stream(dataset, 1, replace(AUGMENTATION, transforms=(Outside(),)))


@dataclass(frozen=True)
class Outside(Transform):
    """Transform with an error: positions may be outside of the image."""

    def random_map(self, element, rng):
        return element._replace(position=element.position - 5)


PROGRAM = """
import itertools, sys
from pathlib import Path
import jax
import numpy as np
from alexnet_jax.configs import load_config
from alexnet_jax.data.pipeline.batches import LoaderOptions, training_batches
from alexnet_jax.data.records import open_dataset

if __name__ == "__main__":
    batches = training_batches(
        open_dataset(Path(sys.argv[1])), load_config(sys.argv[3]).augmentation, input_size=24, batch_size=8, seed=5,
        loader_options=LoaderOptions(workers=2, start=2),
    )
    images, labels, shifts = zip(*((batch.image, batch.label, batch.color_shift) for batch in itertools.islice(batches, 9)))
    np.savez(sys.argv[2], images=images, labels=labels, shifts=shifts)
"""
CONFIG_FILE = """
from dataclasses import dataclass
import numpy as np
from alexnet_jax import Augmentation, TrainConfig, TWO_TOWER
from alexnet_jax.data.pipeline.transforms import Transform

@dataclass(frozen=True)
class TopRow(Transform):
    fraction: float = 0.5

    def random_map(self, element, rng):
        moved = rng.random(len(element.indices)) < self.fraction
        position = np.where(moved[:, None], [0, 1] * element.position, element.position)
        return element._replace(position=position, color_shift=element.color_shift + 10 * moved[:, None])

CONFIG = TrainConfig(TWO_TOWER, augmentation=Augmentation(32, (*Augmentation().transforms, TopRow())))
"""


def test_stream_is_independent_of_worker_processes(dataset, tmp_path):
    """Read the stream in a separate program that imports JAX, as in training, with a transform defined in a config file."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    files = [str(tmp_path / name) for name in ("batches.npz", "config.py")]
    command = [sys.executable, str(tmp_path / "program.py"), str(dataset.path), *files]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    loaded = np.load(tmp_path / "batches.npz")
    expected = stream(dataset, 11, CUSTOM)[2:]
    np.testing.assert_array_equal(loaded["shifts"], [batch.color_shift for batch in expected])
    np.testing.assert_array_equal(loaded["images"], [batch.image for batch in expected])
    np.testing.assert_array_equal(loaded["labels"], [batch.label for batch in expected])


@pytest.mark.parametrize("start", [1, 6, 7, 13])
def test_stream_can_start_at_any_step(dataset, start):
    options = LoaderOptions(start=start)
    assert all(map(batches_equal, stream(dataset, 15)[start:], stream(dataset, 15 - start, loader_options=options)))
    assert all(
        map(batches_equal, stream(dataset, 15, CUSTOM)[start:], stream(dataset, 15 - start, CUSTOM, loader_options=options))
    )


@pytest.mark.parametrize("images_per_crop", [1, 3, 32])
@pytest.mark.parametrize("count", [2, 4])
def test_batch_slices_of_hosts_form_the_batch(dataset, count, images_per_crop):
    transforms = (RandomCrop(images_per_crop=images_per_crop), RandomFlip(images_per_crop), TopRow())
    augmentation = replace(AUGMENTATION, transforms=transforms)
    slices = [slice(8 * i // count, 8 * (i + 1) // count) for i in range(count)]
    parts = [stream(dataset, 9, augmentation, loader_options=LoaderOptions(batch_slice=batch_slice)) for batch_slice in slices]
    for step, batch in enumerate(stream(dataset, 9, augmentation)):
        for i in range(count):
            for part, expected in zip(arrays(parts[i][step]), arrays(batch), strict=True):
                np.testing.assert_array_equal(part, expected[slices[i]])


def test_epochs_contain_every_image_once_in_random_order(dataset):
    labels = np.concatenate([batch.label for batch in stream(dataset, 25)])
    epochs = labels[:200].reshape(4, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_are_not_overwritten(dataset):
    """Check that batches stay valid after later batches are loaded, although threads reuse internal buffers."""
    batches = stream(dataset, 20, loader_options=LoaderOptions(threads=2, memory_fraction=0.0))
    assert all(map(batches_equal, batches, stream(dataset, 20, loader_options=LoaderOptions(threads=1))))


def test_raw_records(dataset, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    with create_dataset(tmp_path / "raw", [str(i) for i in range(20)], size=32, encoding="raw") as writer:
        for i, pixels in enumerate(images):
            writer.write("train", Record(pixels.tobytes(), i, f"{i}.png"), pixels)
    raw = open_dataset(tmp_path / "raw")
    (full_size,) = evaluation_batches(raw, "train", image_size=32, input_size=32, batch_size=20)
    np.testing.assert_array_equal(full_size.image, images)
    (half_size,) = evaluation_batches(raw, "train", image_size=16, input_size=16, batch_size=20)
    np.testing.assert_allclose(half_size.image, images.reshape(20, 16, 2, 16, 2, 3).mean((2, 4)), atol=0.5)
    for batch in stream(raw, 5):
        assert batch.crop is not None
        for image, label, (top, left), flipped in zip(batch.image, batch.label, *batch.crop, strict=True):
            crop = images[label, top : top + 24, left : left + 24]
            np.testing.assert_array_equal(image, crop[:, ::-1] if flipped else crop)


def test_invalid_arguments_and_damaged_images_raise(dataset, tmp_path):
    with pytest.raises(
        UserError, match="has images of 32 pixels, which cannot be decoded to 24: choose an image size of 32, 16, 8, 4"
    ):
        stream(dataset, 1, replace(AUGMENTATION, image_size=24))
    with pytest.raises(UserError, match="pass --threads 1 or more"):
        stream(dataset, 1, loader_options=LoaderOptions(threads=0))
    with pytest.raises(UserError, match="--seed must be at least 0 and at most 4294967295, not -1"):
        next(training_batches(dataset, AUGMENTATION, input_size=24, batch_size=8, seed=-1))
    with create_dataset(tmp_path / "bad", ["a"], size=32) as writer:
        writer.write("train", Record(b"not a JPEG", 0, "photo.jpg"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"photo\.jpg in .* is damaged .*: prepare the data set again"):
        stream(open_dataset(tmp_path / "bad"), 1)


@pytest.mark.slow
def test_workers_exit_with_parent(tmp_path):
    """Check that workers ignore SIGINT and SIGTERM, and exit after the parent is killed."""
    program = f"""
import multiprocessing, sys, time
sys.path[:0] = {sys.path!r}
from alexnet_jax.data.pipeline.batches import _initialize_worker
def work(): _initialize_worker(0, 1); print(multiprocessing.current_process().pid, flush=True); time.sleep(600)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
    process.start()
    process.join()
"""
    file = tmp_path / "parent.py"
    file.write_text(program)
    with subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(timeout=1)
        parent.kill()
        parent.stdout.read()  # returns when the child, which has inherited the pipe, exits


@pytest.mark.parametrize("size", [1, 7, 100])
def test_part_of_a_split_is_divided_among_processes(dataset, size):
    """The parts that two processes load of each batch are those of one process, which are in the order of the split."""

    def load(batch_slice):
        options = LoaderOptions(threads=1, batch_slice=batch_slice, num_images=size)
        return list(evaluation_batches(dataset, "train", image_size=32, input_size=28, batch_size=4, loader_options=options))

    (whole,) = evaluation_batches(dataset, "train", image_size=32, input_size=28, batch_size=100)
    batches, first, second = load(slice(None)), load(slice(0, 2)), load(slice(2, 4))
    part = random_part(len(whole.label), size)
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in batches]), whole.image[part])
    np.testing.assert_array_equal(np.concatenate([batch.label for batch in batches]), whole.label[part])
    for batch, *halves in zip(batches, first, second, strict=True):
        np.testing.assert_array_equal(np.concatenate([half.image for half in halves]), batch.image)
