"""Tests of the color fractions of kernels."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.analysis.kernel_colors import BINS, color_fractions, color_statistics, draw_colors, format_color_statistics
from alexnet_jax.analysis.plots import SCALE, draw_kernels


def test_color_fraction_is_zero_for_gray_and_one_for_opponent_colors(rng):
    gray = np.repeat(rng.normal(size=(5, 5, 1)), 3, axis=-1)
    red_against_green = rng.normal(size=(5, 5, 1)) * [1.0, -1.0, 0.0]
    red = rng.normal(size=(5, 5, 1)) * [1.0, 0.0, 0.0]
    zeros = np.zeros((5, 5, 3))
    kernels = np.stack([gray, red_against_green, red, zeros], axis=-1)[None]
    np.testing.assert_allclose(color_fractions(kernels), [[0, 1, 2 / 3, 0]], atol=1e-12)
    np.testing.assert_allclose(color_fractions(-7 * kernels), color_fractions(kernels), atol=1e-12)


def test_color_fraction_of_noise_is_two_thirds(rng):
    fractions = color_fractions(rng.normal(size=(1, 11, 11, 3, 500)))
    assert fractions.mean() == pytest.approx(2 / 3, abs=0.01)


def test_statistics_are_per_tower(rng, tmp_path):
    gray = np.repeat(rng.normal(size=(5, 5, 1, 8)), 3, axis=-2)
    statistics = color_statistics(np.stack([gray, rng.normal(size=(5, 5, 3, 8))]))
    first, second = statistics["towers"]
    assert (first["mean"], first["median"], first["histogram"]) == (0.0, 0.0, [8] + [0] * (BINS - 1))
    assert second["mean"] > 0.5
    assert sum(second["histogram"]) == second["kernels"] == 8
    assert format_color_statistics(statistics).splitlines()[0] == "tower 0: 8 kernels, mean color fraction 0%"
    draw_colors(statistics, tmp_path / "colors.png")
    with Image.open(tmp_path / "colors.png") as image:
        assert image.width > 300


def test_figure_3_has_tower_0_at_the_top(tmp_path):
    """As in the paper, the kernels of the first tower are in the upper half, in order, from left to right."""
    kernels = np.zeros((2, 4, 4, 3, 10))
    kernels[0, :2], kernels[1, 2:] = 1, 1  # bright upper half in tower 0, bright lower half in tower 1
    kernels[0, :, :, :, 0] = np.linspace(0, 1, 4)[None, :, None]
    draw_kernels(kernels, tmp_path / "kernels.png")
    with Image.open(tmp_path / "kernels.png") as image:
        pixels = np.asarray(image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.NEAREST))
    first, top, bottom = (pixels[row : row + 4, column : column + 4] for row, column in ((1, 1), (1, 6), (10, 6)))
    np.testing.assert_array_equal(first[..., 0], np.tile([0, 85, 170, 255], (4, 1)))
    assert (top[:2].min(), top[2:].max()) == (255, 0)
    assert (bottom[:2].max(), bottom[2:].min()) == (0, 255)
