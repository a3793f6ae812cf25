"""Convolutions with stride 1 by minimal filtering: in the layers of the paper, a third to a sixth of the multiplications.

The outputs are divided into tiles. Linear transforms of the pixels that a tile reads, and of the kernel, turn the convolution
into an elementwise product that is summed over the channels: a matrix product for each element (Winograd, Arithmetic Complexity
of Computations, 1980; Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308). On a CPU, XLA has
only the direct form; on a GPU, cuDNN chooses between both. In float32, errors of rounding are about 4e-6 of the results' size,
ten times those of the direct form and a hundredth of those of TF32. A pixel that is not finite makes all outputs of its tiles
NaN, also those that the direct form would not compute from it.

The functions cannot be differentiated: `conv` computes the gradient of its input, too, and `kernel_gradient` that of its kernel.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, reduce

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_kernels.xla.outlined import outlined

POINTS = [Fraction(point) for point in (0, 1, -1, 2, -2, 0.5, -0.5)]
"""Points at which the polynomials of tiles and kernels are multiplied, besides infinity. Errors grow with their number."""
PRODUCT_COST = 1.8
"""Time of a multiplication in the matrix products, in that of one in the direct form. This and the next two were measured in the
layers of the paper, on two CPU cores."""
TRANSFORM_COST = 32
"""Time to transform an element of the input or of the outputs, in that of a multiplication in the matrix products."""
KERNEL_COST = 31
"""Time to transform an element of the kernel, in the same unit."""


def tile_size(x: tuple[int, ...], kernel: tuple[int, ...], padding: tuple[int, int]) -> int | None:
    """Return the side of the fastest tiles, in outputs; None if the direct convolution is expected to be faster.

    Args:
      x: shape of the activations, [batch, height, width, channels].
      kernel: shape of the kernel, [size, size, channels, features].
      padding: numbers of zeros (before, after) the image, on both axes.
    """
    batch, height, width, channels = x
    size, features = kernel[0], kernel[-1]
    outputs = [side + sum(padding) - size + 1 for side in (height, width)]
    if size != kernel[1] or min(batch, *outputs) < 1:
        return None

    def cost(tile: int) -> float:
        tiles, products = (-(-outputs[0] // tile)) * (-(-outputs[1] // tile)), (tile + size - 1) ** 2
        per_image = tiles * (channels * features + TRANSFORM_COST * (channels + features))
        return PRODUCT_COST * products * (per_image + KERNEL_COST * channels * features / batch)

    fastest = min(range(2, len(POINTS) + 3 - size), key=cost, default=None)
    direct_cost = outputs[0] * outputs[1] * size**2 * channels * features
    return None if fastest is None or cost(fastest) >= direct_cost else fastest


def conv(x: Array, kernel: Array, padding: tuple[int, int], tile: int) -> Array:
    """Compute the convolution of NHWC activations and an HWIO kernel with stride 1, in tiles of `tile` x `tile` outputs.

    Returns:
      Outputs, [batch, rows, columns, features].
    """
    size, (batch, height, width, _) = kernel.shape[0], x.shape
    to_outputs, to_kernel, _ = _matrices(tile, size)
    pixels = transform_input(x, padding, tile, size)
    points, channels, features = pixels.shape[0], x.shape[-1], kernel.shape[-1]
    kernel = _multiply(to_kernel, _multiply(to_kernel, kernel, axis=0), axis=1).reshape(points**2, channels, features)
    products = lax.dot_general(pixels.reshape(points**2, -1, channels), kernel, (((2,), (1,)), ((0,), (0,))))
    y = _multiply(to_outputs, products.reshape(*pixels.shape[:-1], features), axis=0, new_axis=-2)
    y = _multiply(to_outputs, y, axis=0, new_axis=2)  # [batch, tiles, tile, tiles, tile, features]
    y = y.reshape(batch, y.shape[1] * tile, y.shape[3] * tile, features)
    return y[:, : height + sum(padding) - size + 1, : width + sum(padding) - size + 1]


def transform_input(x: Array, padding: tuple[int, int], tile: int, size: int) -> Array:
    """Return the transform of the pixels that each tile reads, [points, points, batch, tiles, tiles, channels]."""
    tiles = [-(-(side + sum(padding) - size + 1) // tile) for side in x.shape[1:3]]
    ends = [count * tile + size - 1 - padding[0] - side for count, side in zip(tiles, x.shape[1:3], strict=True)]
    return _transform_tiles(_pad(x, padding[0], ends), _matrices(tile, size)[2], tile, tiles)


def kernel_gradient(pixels: Array, g: Array, tile: int, size: int) -> Array:
    """Return the gradient of the kernel, [size, size, channels, features], from `transform_input` and that of the outputs."""
    to_outputs, to_kernel, _ = _matrices(tile, size)
    points, tiles, channels, features = pixels.shape[0], pixels.shape[3:5], pixels.shape[-1], g.shape[-1]
    ends = [count * tile - side for count, side in zip(tiles, g.shape[1:3], strict=True)]
    g = _transform_tiles(_pad(g, 0, ends), to_outputs.T, tile, tiles)
    pixels, g = pixels.reshape(points**2, -1, channels), g.reshape(points**2, -1, features)
    products = lax.dot_general(pixels, g, (((1,), (1,)), ((0,), (0,)))).reshape(points, points, channels, features)
    return _multiply(to_kernel.T, _multiply(to_kernel.T, products, axis=0), axis=1)


def _transform_tiles(x: Array, matrix: np.ndarray, stride: int, tiles: Sequence[int]) -> Array:
    """Multiply the columns and the rows of every tile, which start every `stride` pixels, by a matrix.

    Returns:
      Products, [points, points, batch, tiles, tiles, channels].
    """

    def pixels_at(x: Array, axis: int, count: int) -> list[Array]:
        return [lax.slice_in_dim(x, i, i + (count - 1) * stride + 1, stride, axis) for i in range(matrix.shape[1])]

    @outlined
    def transform_columns(x: Array) -> Array:
        return _combine(matrix, pixels_at(x, 1, tiles[0]), 0)

    @outlined
    def transform_rows(x: Array) -> Array:
        return _combine(matrix, pixels_at(x, 3, tiles[1]), 0)

    return transform_rows(transform_columns(x))


def _multiply(matrix: np.ndarray, x: Array, axis: int, new_axis: int = 0) -> Array:
    """Multiply the vectors along an axis by a matrix; the products are along `new_axis` of the result."""

    @outlined
    def multiply(x: Array) -> Array:
        return _combine(matrix, [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])], new_axis)

    return multiply(x)


def _combine(matrix: np.ndarray, parts: Sequence[Array], axis: int) -> Array:
    """Return the sums of `parts`, weighted by each row of a matrix, along a new axis."""
    terms = []
    for weights, part in zip(matrix.T, parts, strict=True):
        part = jnp.expand_dims(part, axis)
        shape = [1] * part.ndim
        shape[axis] = len(weights)
        terms.append(jnp.asarray(weights, part.dtype).reshape(shape) * part)
    return reduce(jnp.add, terms)


def _pad(x: Array, start: int, ends: Sequence[int]) -> Array:
    """Pad the rows and columns with zeros."""
    if not start and not any(ends):
        return x

    @outlined
    def pad(x: Array) -> Array:
        return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((start, end, 0) for end in ends), (0, 0, 0)])

    return pad(x)


@cache
def _matrices(tile: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices of one dimension, by which y = outputs @ ((kernel @ k) * (pixels @ x)).

    A correlation is the transpose of a product of polynomials, which is computed by evaluating both at `tile + size - 1` points,
    multiplying the values, and interpolating (Toom and Cook).
    """
    points = POINTS[: tile + size - 2]
    powers = np.array([[point**i for i in range(max(tile, size))] for point in points])
    outputs, kernel = powers.T[:tile], powers[:, :size]
    scales = [math.prod([point - other for other in points if other != point], start=Fraction(1)) for point in points]
    pixels = [[*_coefficients([other for other in points if other != point]), Fraction(0)] for point in points]
    kernel = kernel / np.array(scales)[:, None]
    # At infinity, the value of a polynomial is its last coefficient.
    outputs, kernel = np.c_[outputs, [0] * (tile - 1) + [1]], np.r_[kernel, [[0] * (size - 1) + [1]]]
    return outputs.astype(float), kernel.astype(float), np.array([*pixels, _coefficients(points)], float)


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of the polynomial with these roots, from the constant to the leading one, which is 1."""
    coefficients = [Fraction(1)]
    for root in roots:
        coefficients = [high - root * low for high, low in zip([0, *coefficients], [*coefficients, 0], strict=True)]
    return coefficients
