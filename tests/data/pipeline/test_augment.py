"""Tests of the augmentation, mostly statistical tests of random parameters."""

import itertools
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from alexnet_jax.data.pipeline.augment import (
    SOURCE_AUGMENTATION,
    Augmentation,
    Crop,
    Example,
    center_crop,
    resize_mean_image,
)
from alexnet_jax.data.pipeline.batches import random_params
from alexnet_jax.data.pipeline.transforms import PCAColor, RandomCrop, RandomFlip, Transform, color_shift
from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.views import nine_views, ten_views
from alexnet_jax.training.normalization import normalize

COLORS = ColorComponents(np.array([20.0, 40.0, 120.0]), np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
PAPER = Augmentation()
EVERY_POSITION = Augmentation(transforms=(RandomCrop(last_position=True), RandomFlip()))


def draw_batches(augmentation, steps, batch_size=128, border=32, seed=1):
    batches = random_params(augmentation, 1000, border=border, colors=COLORS, batch_size=batch_size, seed=seed)
    position, flipped, shifts = zip(*(batch[1:4] for batch in itertools.islice(batches, steps)), strict=True)
    return np.concatenate(position), np.concatenate(flipped), np.concatenate(shifts)


def is_uniform(counts, expected):
    """Return whether the chi-squared statistic of the counts is within five standard deviations of its mean."""
    degrees_of_freedom = counts.size - 1
    return abs(((counts - expected) ** 2 / expected).sum() - degrees_of_freedom) < 5 * (2 * degrees_of_freedom) ** 0.5


@pytest.mark.parametrize(("augmentation", "positions"), [(PAPER, 32), (EVERY_POSITION, 33)], ids=["paper", "code"])
def test_crops_and_flips_are_uniform(augmentation, positions):
    """Check all 32 x 32 x 2 = 2048 crops of the paper, and 33 x 33 x 2 = 2178 of the original code."""
    position, flipped, _ = draw_batches(augmentation, 400)
    counts = np.zeros((positions, positions, 2))
    np.add.at(counts, (*position.T, flipped.astype(int)), 1)
    assert counts.size == (2048 if augmentation is PAPER else 2178)
    assert is_uniform(counts, len(position) / counts.size)
    assert is_uniform(counts.sum((0, 1)), len(position) / 2)
    # Consecutive positions are independent.
    pairs = np.zeros((positions, positions))
    np.add.at(pairs, (position[:-1, 0], position[1:, 0]), 1)
    assert is_uniform(pairs, (len(position) - 1) / pairs.size)


def test_images_per_crop():
    position, flipped, shifts = draw_batches(SOURCE_AUGMENTATION, 50)
    for values in (position, flipped[:, None]):
        chunks = values.reshape(200, 32, -1)
        assert (chunks == chunks[:, :1]).all()
    assert len(np.unique(position.reshape(200, 32, 2)[:, 0], axis=0)) > 150
    assert len(np.unique(shifts[:, 0])) == len(shifts)


@pytest.mark.parametrize(("scale", "sizes"), [("deviation", COLORS.deviations), ("variance", COLORS.deviations**2 / 255)])
def test_color_shift_covariance(scale, sizes):
    _, _, shifts = draw_batches(Augmentation(transforms=(PCAColor(scale),)), 400)
    expected = COLORS.directions @ np.diag((0.1 * sizes) ** 2) @ COLORS.directions.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.03 * np.abs(expected).max())
    np.testing.assert_allclose(shifts.mean(0), 0, atol=5 * 0.1 * sizes.max() / len(shifts) ** 0.5)


def test_color_shift_along_one_component():
    shift = color_shift(np.array([[1.0, 0, 0]]), COLORS, "deviation")
    np.testing.assert_allclose(shift[0], 20 * COLORS.directions[:, 0], rtol=1e-6)


def test_disabling_one_augmentation_keeps_the_others():
    position, flipped, shifts = draw_batches(PAPER, 2)
    without_crops = draw_batches(PAPER.without("RandomCrop"), 2)
    assert (without_crops[0] == 16).all()
    np.testing.assert_array_equal(without_crops[1], flipped)
    np.testing.assert_array_equal(without_crops[2], shifts)
    without_flips = draw_batches(PAPER.without("RandomFlip"), 2)
    assert not without_flips[1].any()
    np.testing.assert_array_equal(without_flips[0], position)
    without_color = draw_batches(PAPER.without("PCAColor"), 2)
    assert not without_color[2].any()
    np.testing.assert_array_equal(without_color[0], position)
    deviations = replace(PAPER, transforms=(PCAColor("deviation"), RandomCrop()))
    np.testing.assert_array_equal(draw_batches(deviations, 2)[0], position)
    assert shifts.any()


def test_random_numbers_of_transforms_steps_and_seeds_are_independent():
    position, flipped, shifts = draw_batches(PAPER, 200)
    other_position, other_flipped, other_shifts = draw_batches(PAPER, 200, seed=2)
    columns = np.stack(
        [*position.T, flipped, *shifts.T, *other_position.T, other_flipped, *other_shifts.T, *np.roll(position, 128, axis=0).T]
    )
    correlation = np.array(np.corrcoef(columns.astype(np.float64)))
    shift_rows = np.arange(len(columns)) % 6 >= 3  # red, green and blue are correlated by the color components
    same_shift = shift_rows[:, None] & shift_rows & (np.arange(len(columns))[:, None] // 6 == np.arange(len(columns)) // 6)
    correlation[same_shift | np.eye(len(columns), dtype=bool)] = 0
    assert np.abs(correlation).max() < 5 / len(position) ** 0.5


@dataclass(frozen=True)
class UsersBrightness(Transform):
    """Transform of a user: a shift of all colors, in some of the images."""

    levels: tuple[int, ...] = (0, 16, 32)

    def random_map(self, element, rng):
        shift = rng.choice(np.array(self.levels, np.float32), size=(len(element.indices), 1))
        return element._replace(color_shift=element.color_shift + shift)


def test_transform_is_added():
    position, flipped, shifts = draw_batches(PAPER, 4)
    added = draw_batches(replace(PAPER, transforms=(*PAPER.transforms, UsersBrightness())), 4)
    np.testing.assert_array_equal(added[0], position)
    np.testing.assert_array_equal(added[1], flipped)
    brightness = added[2] - shifts
    np.testing.assert_allclose(brightness, np.broadcast_to(brightness[:, :1], brightness.shape), atol=1e-4)
    assert set(brightness.round(3).ravel()) == {0, 16, 32}


@pytest.mark.parametrize(
    "augmentation",
    [
        PAPER,
        SOURCE_AUGMENTATION,
        Augmentation(64, transforms=()),
        Augmentation(transforms=(UsersBrightness((1, 2)), RandomCrop())),
    ],
    ids=["paper", "code", "none", "user's"],
)
def test_augmentation_is_stored_as_json(augmentation):
    restored = Augmentation.from_json(json.loads(json.dumps(augmentation.to_json())))
    assert {restored} == {augmentation}, "equal and hashable, because immutable"


def test_properties_of_transforms():
    assert (PAPER.shifts_colors, PAPER.color_divisor) == (True, 1.0)
    assert SOURCE_AUGMENTATION.color_divisor == 1.1
    assert (EVERY_POSITION.shifts_colors, EVERY_POSITION.color_divisor) == (False, 1.0)
    assert Augmentation(transforms=(UsersBrightness(),)).shifts_colors


def test_invalid_transforms_raise():
    with pytest.raises(UserError, match=r"RandomCrop, RandomCrop have equal names, .*: keep one of each"):
        Augmentation(transforms=(RandomCrop(), RandomCrop(last_position=True)))
    with pytest.raises(UserError, match="no transform Color: choose from RandomCrop, RandomFlip, PCAColor"):
        PAPER.without("Color")
    with pytest.raises(UserError, match="there is no transform Blur: if it is your own, import the module that defines it"):
        Transform.from_json({"transform": "Blur"})
    with pytest.raises(UserError, match=r"RandomFlip has different fields \(.*'often'.*\)"):
        Transform.from_json({"transform": "RandomFlip", "often": 1})
    for invalid, message in [
        (lambda: RandomCrop(images_per_crop=0), "images_per_crop of RandomCrop must be at least 1"),
        (lambda: RandomFlip(0), "images_per_flip of RandomFlip must be at least 1"),
        (lambda: PCAColor(std=-0.1), "std of PCAColor must be at least 0"),
        (lambda: PCAColor(divisor=0.0), "divisor of PCAColor must be greater than 0"),
    ]:
        with pytest.raises(UserError, match=message):
            invalid()


def test_crop_position_without_border():
    assert (draw_batches(PAPER, 2, border=0)[0] == 0).all()


@pytest.mark.parametrize("mean_kind", ["crop", "center", "channel"])
def test_normalize_matches_numpy(mean_kind, rng):
    """Compare the subtraction of the mean on the device with NumPy, one image at a time."""
    stored = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
    resized = stored.reshape(8, 2, 8, 2, 3).mean((1, 3))
    mean = resize_mean_image(stored, Augmentation(image_size=8, mean=mean_kind))
    images = rng.integers(0, 256, (4, 5, 5, 3), np.uint8)
    shift = rng.normal(size=(4, 3)).astype(np.float32)
    crop = Crop(np.array([[0, 3], [2, 1], [3, 3], [1, 0]], np.int32), np.array([False, True, True, False]))
    normalized = normalize(Example(images, np.zeros(4, np.int32), shift, crop if mean_kind == "crop" else None), mean)
    for i, ((top, left), flipped) in enumerate(zip(*crop, strict=True)):
        crop_of_mean = resized[top : top + 5, left : left + 5]
        expected_mean = {
            "crop": crop_of_mean[:, ::-1] if flipped else crop_of_mean,
            "center": resized[1:6, 1:6],
            "channel": resized.mean((0, 1)),
        }[mean_kind]
        np.testing.assert_allclose(normalized[i], images[i] - expected_mean + shift[i], rtol=1e-5, atol=1e-4)


def test_ten_views(rng):
    image = rng.integers(0, 256, (2, 9, 9, 3), np.uint8)
    views = ten_views(image, 5)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    assert len(views) == 10
    for i, (top, left) in enumerate(corners):
        np.testing.assert_array_equal(views[i], image[:, top : top + 5, left : left + 5])
        np.testing.assert_array_equal(views[i + 5], views[i][:, :, ::-1])
    np.testing.assert_array_equal(views[4], center_crop(image, 5))


def test_nine_views(rng):
    images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    views = nine_views(images, 24)
    offsets = [(top, left) for top in (0, 4, 8) for left in (0, 4, 8)]
    for view, (top, left) in zip(views, offsets, strict=True):
        np.testing.assert_array_equal(view, images[:, top : top + 24, left : left + 24])
