"""Tests of minimal filtering: values against sums in float64, errors of rounding, and when it is used."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_kernels.xla import winograd

CASES = {
    "conv2": ((2, 27, 27, 3), (5, 5), (2, 2)),
    "conv3": ((2, 13, 13, 3), (3, 3), (1, 1)),
    "other sides": ((3, 7, 10, 2), (3, 3), (0, 2)),
    "smaller than a tile": ((1, 2, 3, 2), (3, 3), (1, 1)),
    "kernel of even size": ((2, 6, 5, 3), (2, 2), (1, 0)),
    "no padding": ((2, 12, 11, 2), (5, 5), (0, 0)),
    "padding larger than the kernel": ((2, 5, 5, 2), (3, 3), (4, 3)),
    "largest kernel": ((2, 9, 9, 2), (7, 7), (3, 3)),
}
TILES = [pytest.param(case, tile, id=f"{name}-{tile}") for name, case in CASES.items() for tile in range(1, 10 - case[1][0])]


def exact_conv(x, kernel, padding):
    """Return the convolution as sums of NumPy, in the dtype of the arguments."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    height, width = (side - size + 1 for side in x.shape[1:3])
    shifts = [(row, column) for row in range(size) for column in range(size)]
    return np.sum([x[:, row : row + height, column : column + width] @ kernel[row, column] for row, column in shifts], axis=0)


def exact_kernel_gradient(x, g, padding, size):
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    height, width = g.shape[1:3]
    gradient = [
        [np.einsum("bijc,bijf->cf", x[:, row : row + height, column : column + width], g) for column in range(size)]
        for row in range(size)
    ]
    return np.array(gradient)


def relative_error(actual, expected):
    return np.sqrt(np.mean((np.asarray(actual, np.float64) - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize(("case", "tile"), TILES)
def test_convolution_and_kernel_gradient_equal_sums_in_float64(case, tile):
    (batch, *sides, channels), (size, _), padding = case
    rng, features = np.random.default_rng(0), 4
    x, kernel = (
        rng.normal(size=shape).astype(np.float32) for shape in ((batch, *sides, channels), (size, size, channels, features))
    )
    expected = exact_conv(x.astype(np.float64), kernel.astype(np.float64), padding)
    actual = jax.jit(partial(winograd.conv, padding=padding, tile=tile))(x, kernel)
    assert actual.shape == expected.shape
    assert actual.dtype == jnp.float32
    assert relative_error(actual, expected) < 1e-5

    g = rng.normal(size=expected.shape).astype(np.float32)

    @jax.jit
    def gradient(x, g):
        return winograd.kernel_gradient(winograd.transform_input(x, padding, tile, size), g, tile, size)

    exact = exact_kernel_gradient(x.astype(np.float64), g.astype(np.float64), padding, size)
    assert relative_error(gradient(x, g), exact) < 1e-5


PAPER = {
    "conv2": ((32, 27, 27, 48), (5, 5, 48, 128), (2, 2)),
    "conv3": ((32, 13, 13, 256), (3, 3, 256, 192), (1, 1)),
    "conv4": ((32, 13, 13, 192), (3, 3, 192, 192), (1, 1)),
    "conv5": ((32, 13, 13, 192), (3, 3, 192, 128), (1, 1)),
}
"""Convolutions of a tower for which minimal filtering is used."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_errors_of_rounding_in_the_layers_of_the_paper(name):
    """The error relative to the outputs is a hundredth of the rounding of TF32, 2**-11."""
    shape, kernel_shape, padding = PAPER[name]
    rng = np.random.default_rng(0)
    x, kernel = (np.maximum(rng.normal(size=size), floor).astype(np.float32) for size, floor in ((shape, 0), (kernel_shape, -9)))
    expected = exact_conv(x.astype(np.float64), kernel.astype(np.float64), padding)
    tile = winograd.tile_size(shape, kernel_shape, padding)
    assert tile is not None
    error = relative_error(jax.jit(partial(winograd.conv, padding=padding, tile=tile))(x, kernel), expected)
    assert error < 1e-5


def test_tiles_of_the_layers_of_the_paper():
    assert {name: winograd.tile_size(*arguments) for name, arguments in PAPER.items()} == {
        "conv2": 4, "conv3": 5, "conv4": 5, "conv5": 5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((1, 13, 13, 256), (3, 3, 256, 192)),  # the kernel is transformed for a single image
        ((32, 224, 224, 3), (5, 5, 3, 16)),  # few channels
        ((32, 27, 27, 48), (1, 1, 48, 128)),
        ((32, 27, 27, 48), (9, 9, 48, 128)),  # more points than there are
        ((32, 27, 27, 48), (3, 5, 48, 128)),  # not square
        ((32, 2, 2, 256), (5, 5, 256, 256)),  # no outputs
        ((0, 13, 13, 256), (3, 3, 256, 192)),
    ],
)
def test_direct_form_is_chosen(shape, kernel):
    assert winograd.tile_size(shape, kernel, (0, 0)) is None


def test_nan_reaches_all_outputs_that_read_it():
    x = np.ones((1, 13, 13, 4), np.float32)
    x[0, 6, 6, 1] = np.nan
    kernel = np.ones((3, 3, 4, 2), np.float32)
    y = np.asarray(jax.jit(partial(winograd.conv, padding=(1, 1), tile=5))(x, kernel))
    assert np.isnan(y[0, 5:8, 5:8]).all()


def test_pixels_are_transformed_once_for_the_forward_pass_and_the_gradient():
    x, kernel, g = (jnp.ones(shape) for shape in ((8, 13, 13, 16), (3, 3, 16, 12), (8, 13, 13, 12)))

    def both(x, kernel, g) -> Any:
        return winograd.conv(x, kernel, (1, 1), 5), winograd.kernel_gradient(winograd.transform_input(x, (1, 1), 5, 3), g, 5, 3)

    text = str(jax.jit(both).lower(x, kernel, g).compile().as_text())
    padded, transformed = (re.findall(rf"f32\[{shape}\]\S* call\(", text) for shape in ("8,17,17,16", "7,7,8,3,3,16"))
    assert len(padded) == len(transformed) == 1
    assert "convolution" not in text
