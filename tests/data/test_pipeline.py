"""The stream of batches: the same however it is read; augmentation that does what the paper says."""

import itertools

import numpy as np
import pytest

from alexnet_jax.data.augment import Augmentation, TrainingView, color_shift, mean_to_subtract
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline import Slice, training_batches
from alexnet_jax.data.records import Record, open_dataset, pack
from alexnet_jax.data.shards import new_dataset
from alexnet_jax.data.statistics import ColorComponents

COLORS = ColorComponents(np.array([20.0, 40.0, 120.0]), np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "numbers"
    rng = np.random.default_rng(0)
    with new_dataset(path, [str(i) for i in range(50)], size=32) as writer:
        for i in range(50):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            writer.write("train", Record(encode_jpeg(pixels), i, f"{i}.jpg"), pixels)
    return open_dataset(path)


def stream(dataset, count, **kwargs):
    augmentation = Augmentation(image_size=32)
    batches = training_batches(dataset, augmentation, input_size=24, batch_size=8, seed=5, **kwargs)
    return list(itertools.islice(batches, count))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_any_number_of_threads_gives_the_same_stream(dataset):
    assert all(map(same, stream(dataset, 15, threads=1), stream(dataset, 15, threads=4)))


@pytest.mark.parametrize("start", [1, 6, 7, 13])
def test_the_stream_goes_on_where_it_stopped(dataset, start):
    assert all(map(same, stream(dataset, 15)[start:], stream(dataset, 15 - start, start=start)))


@pytest.mark.parametrize("count", [2, 4])
def test_parts_of_processes_make_up_the_batches(dataset, count):
    parts = [stream(dataset, 9, part=Slice(i, count)) for i in range(count)]
    for step, whole in enumerate(stream(dataset, 9)):
        for i in range(count):
            assert same(parts[i][step], [values[i::count] for values in whole])


def test_an_epoch_shows_every_image_once_in_a_new_order(dataset):
    labels = np.concatenate([batch.label for batch in stream(dataset, 25)])
    epochs = labels[:200].reshape(4, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def views(augmentation, count, size=32):
    """Crop positions (row, column), mirrorings and shifts of many views of an image whose pixels tell their place."""
    rows, columns = np.mgrid[0:size, 0:size]
    pixels = np.stack([rows * 4, columns * 4, np.zeros_like(rows)], -1).astype(np.uint8)
    record = pack(Record(encode_jpeg(pixels), 0, "x"))
    view = TrainingView(augmentation, 28, COLORS, seed=1)
    examples = [view(i, record) for i in range(count)]
    images = np.stack([example.image for example in examples]).astype(float)
    flips = images[:, 14, 0, 1] > images[:, 14, -1, 1]
    top = np.round(images[:, :, :, 0].mean((1, 2)) / 4 - 13.5)
    left = np.round(images[:, :, :, 1].mean((1, 2)) / 4 - 13.5)
    return top, left, flips, np.stack([example.color_shift for example in examples])


@pytest.mark.parametrize(("last", "positions"), [(False, 4), (True, 5)])
def test_crops_are_uniform_over_the_papers_positions(last, positions):
    """Of 32 pixels 28: 4 x 4 positions by the prose (as 32 x 32 of 256 and 224), 5 x 5 by the code."""
    count = 2000
    top, left, _, _ = views(Augmentation(image_size=32, last_position=last), count)
    found, times = np.unique(np.stack([top, left], 1), axis=0, return_counts=True)
    assert len(found) == positions**2
    assert found.min() == 0
    assert found.max() == positions - 1
    expected = count / positions**2
    chi_squared = ((times - expected) ** 2 / expected).sum()
    degrees = positions**2 - 1
    assert chi_squared < degrees + 5 * (2 * degrees) ** 0.5


def test_half_the_images_are_mirrored():
    _, _, flips, _ = views(Augmentation(image_size=32), 1000)
    assert flips.mean() == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)


def test_images_share_a_crop_but_not_a_colour():
    top, left, flips, shifts = views(Augmentation(image_size=32, images_per_crop=10), 100)
    for values in (top, left, flips):
        assert (values.reshape(10, 10) == values.reshape(10, 10)[:, :1]).all()
    assert len(np.unique(shifts[:, 0])) == 100


@pytest.mark.parametrize(("scale", "sizes"), [("deviation", COLORS.deviations), ("variance", COLORS.deviations**2 / 255)])
def test_colour_shifts_have_the_covariance_of_the_formula(scale, sizes):
    rng = np.random.default_rng(0)
    shifts = np.stack([color_shift(rng.normal(0, 0.1, 3), COLORS, scale) for _ in range(20_000)])
    expected = COLORS.directions @ np.diag((0.1 * sizes) ** 2) @ COLORS.directions.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.05 * np.abs(expected).max())


def test_without_augmentation_every_view_is_the_centre():
    top, left, flips, shifts = views(Augmentation(image_size=32, crop=False, flip=False, color=None), 5)
    assert (top == 2).all()
    assert (left == 2).all()
    assert not flips.any()
    assert not shifts.any()


def test_the_mean_is_the_centre_of_the_mean_image_at_the_networks_scale():
    mean = np.repeat(np.repeat(np.arange(64.0).reshape(8, 8, 1), 2, 0), 2, 1) * np.ones(3)
    np.testing.assert_array_equal(mean_to_subtract(mean, 8, 4), (np.arange(64.0).reshape(8, 8, 1) * np.ones(3))[2:6, 2:6])
