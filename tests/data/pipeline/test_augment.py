"""Augmentation does what the paper and its code say, by the statistics of many draws."""

from dataclasses import replace

import numpy as np
import pytest

from alexnet_jax.data.pipeline.augment import (
    Augmentation,
    Crop,
    Example,
    center_crop,
    color_shift,
    draw_augmentation,
    mean_to_subtract,
)
from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.evaluation.views import nine_views, ten_views
from alexnet_jax.training.step import normalize

COLORS = ColorComponents(np.array([20.0, 40.0, 120.0]), np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
PROSE = Augmentation()
SOURCE = Augmentation(last_position=True, images_per_crop=32, mean="center", color="deviation", color_divisor=1.1)


def draws(augmentation, steps, images=128, border=32):
    found = [draw_augmentation(augmentation, COLORS, border=border, images=images, seed=1, step=step) for step in range(steps)]
    crops, shifts = zip(*found, strict=True)
    position, flipped = (np.concatenate(values) for values in zip(*crops, strict=True))
    return position, flipped, np.concatenate(shifts)


def chi_squared_is_likely(times, expected):
    """Whether counts are those of a uniform draw: chi-squared within five standard deviations of its mean."""
    degrees = times.size - 1
    return abs(((times - expected) ** 2 / expected).sum() - degrees) < 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize(
    ("augmentation", "positions"), [(PROSE, 32), (replace(SOURCE, images_per_crop=1), 33)], ids=["prose", "code"]
)
def test_crops_are_uniform_over_all_positions_and_mirrorings(augmentation, positions):
    """32 x 32 x 2 = 2048 of them by the prose, 33 x 33 x 2 by the code."""
    position, flipped, _ = draws(augmentation, 400)
    times = np.zeros((positions, positions, 2))
    np.add.at(times, (*position.T, flipped.astype(int)), 1)
    assert times.size == (2048 if augmentation is PROSE else 2178)
    assert chi_squared_is_likely(times, len(position) / times.size)
    assert chi_squared_is_likely(times.sum((0, 1)), len(position) / 2)
    # One draw says nothing about the next.
    pairs = np.zeros((positions, positions))
    np.add.at(pairs, (position[:-1, 0], position[1:, 0]), 1)
    assert chi_squared_is_likely(pairs, (len(position) - 1) / pairs.size)


def test_a_chunk_shares_its_crop_but_not_its_color():
    position, flipped, shifts = draws(SOURCE, 50)
    for values in (position, flipped[:, None]):
        chunks = values.reshape(200, 32, -1)
        assert (chunks == chunks[:, :1]).all()
    assert len(np.unique(position.reshape(200, 32, 2)[:, 0], axis=0)) > 150
    assert len(np.unique(shifts[:, 0])) == len(shifts)


@pytest.mark.parametrize(("scale", "sizes"), [("deviation", COLORS.deviations), ("variance", COLORS.deviations**2 / 255)])
def test_color_shifts_have_the_covariance_of_the_formula(scale, sizes):
    _, _, shifts = draws(replace(PROSE, color=scale), 400)
    expected = COLORS.directions @ np.diag((0.1 * sizes) ** 2) @ COLORS.directions.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.03 * np.abs(expected).max())
    np.testing.assert_allclose(shifts.mean(0), 0, atol=5 * 0.1 * sizes.max() / len(shifts) ** 0.5)


def test_a_shift_of_one_component_goes_along_it():
    first = color_shift(np.array([[1.0, 0, 0]]), COLORS, "deviation")
    np.testing.assert_allclose(first[0], 20 * COLORS.directions[:, 0], rtol=1e-6)


def test_leaving_one_thing_out_changes_nothing_else():
    position, flipped, shifts = draws(PROSE, 2)
    without_crops = draws(replace(PROSE, crop=False), 2)
    assert (without_crops[0] == 16).all()
    np.testing.assert_array_equal(without_crops[1], flipped)
    without_flips = draws(replace(PROSE, flip=False), 2)
    assert not without_flips[1].any()
    np.testing.assert_array_equal(without_flips[0], position)
    without_color = draws(replace(PROSE, color=None), 2)
    assert not without_color[2].any()
    np.testing.assert_array_equal(without_color[0], position)
    np.testing.assert_array_equal(draws(replace(PROSE, color="deviation"), 2)[0], position)
    assert shifts.any()


def test_without_a_border_there_is_one_position():
    assert (draws(PROSE, 2, border=0)[0] == 0).all()


@pytest.mark.parametrize("kind", ["crop", "center", "channel"])
def test_the_mean_is_subtracted_as_the_field_says(kind, rng):
    """On the device; against the same in NumPy, image by image."""
    stored = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
    at_scale = stored.reshape(8, 2, 8, 2, 3).mean((1, 3))
    mean = mean_to_subtract(stored, Augmentation(image_size=8, mean=kind))
    images = rng.integers(0, 256, (4, 5, 5, 3), np.uint8)
    shift = rng.normal(size=(4, 3)).astype(np.float32)
    crop = Crop(np.array([[0, 3], [2, 1], [3, 3], [1, 0]], np.int32), np.array([False, True, True, False]))
    found = normalize(Example(images, np.zeros(4, np.int32), shift, crop if kind == "crop" else None), mean)
    for i, ((top, left), flipped) in enumerate(zip(*crop, strict=True)):
        own = at_scale[top : top + 5, left : left + 5]
        part = {
            "crop": own[:, ::-1] if flipped else own,
            "center": at_scale[1:6, 1:6],
            "channel": at_scale.mean((0, 1)),
        }[kind]
        np.testing.assert_allclose(found[i], images[i] - part + shift[i], rtol=1e-5, atol=1e-4)


def test_ten_views_are_corners_and_center_then_mirrored(rng):
    image = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    views = ten_views(image, 5)
    corners = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    assert len(views) == 10
    for i, (top, left) in enumerate(corners):
        np.testing.assert_array_equal(views[i], image[:, top : top + 5, left : left + 5])
        np.testing.assert_array_equal(views[i + 5], views[i][:, :, ::-1])
    np.testing.assert_array_equal(views[4], center_crop(image, 5))


def test_nine_views_are_a_grid_not_mirrored(rng):
    images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    views = nine_views(images, 24)
    places = [(top, left) for top in (0, 4, 8) for left in (0, 4, 8)]
    for view, (top, left) in zip(views, places, strict=True):
        np.testing.assert_array_equal(view, images[:, top : top + 24, left : left + 24])
