"""Dense SIFT descriptors (Lowe 2004) at fixed scales and orientation, on a grid.

Gradients are collected in maps, one per orientation, which are filtered and sampled on the grid. This is faster than SIFT of
OpenCV, which computes each patch by itself, and the descriptors are almost the same (see the tests).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

try:
    import cv2  # type: ignore[reportMissingImports]
except ModuleNotFoundError:
    raise SystemExit("error: OpenCV is not installed; run make baselines, which installs the extra baselines") from None

ORIENTATIONS = 8
BINS = 4
"""Spatial bins of a descriptor along each side."""
WINDOW_STD = BINS / 2
"""Standard deviation of the Gaussian window over a patch, in bins."""
SMOOTHING = 1 / 6
"""Standard deviation of the Gaussian with which the image is smoothed, in bins."""
MAX_VALUE = 0.2
"""Upper bound of the values of a normalized descriptor, which is then normalized again."""
MIN_GRADIENT = 0.5
"""Mean magnitude of the gradient, in gray levels per pixel, below which a descriptor is set to zero."""


class Descriptors(NamedTuple):
    """Descriptors of the patches of an image.

    Attributes:
      values: descriptors, of norm 1 or 0.
      positions: centers of the patches as fractions of height and width, from 0 to 1.
    """

    values: Float32[np.ndarray, "patches 128"]
    positions: Float32[np.ndarray, "patches 2"]


def dense_sift(gray: UInt8[np.ndarray, "height width"], step: int, bin_sizes: tuple[int, ...]) -> Descriptors:
    """Return the descriptors of an image at several scales.

    Args:
      gray: image.
      step: distance of the patches, in pixels.
      bin_sizes: sides of a spatial bin for each scale, in pixels; a patch has four times that side. Scales whose patches are
        larger than the image have no descriptors.
    """
    scales = [_one_scale(gray, step, bin_size) for bin_size in bin_sizes if min(gray.shape) >= BINS * bin_size]
    empty = Descriptors(np.empty((0, ORIENTATIONS * BINS**2), np.float32), np.empty((0, 2), np.float32))
    return Descriptors(*map(np.concatenate, zip(empty, *scales, strict=True)))


def sample_descriptors(
    descriptors: Iterable[Descriptors], samples: int, most_per_image: int = 500
) -> Float32[np.ndarray, "samples 128"]:
    """Return random descriptors that are not zero, at most `samples` in all."""
    rng = np.random.default_rng(0)
    sampled = [rng.permutation(of_image.values[of_image.values.any(axis=1)])[:most_per_image] for of_image in descriptors]
    return rng.permutation(np.concatenate(sampled))[:samples]


def _one_scale(gray: UInt8[np.ndarray, "height width"], step: int, bin_size: int) -> Descriptors:
    maps = _orientation_maps(gray, bin_size)
    rows, columns = (_grid(side, step, bin_size) for side in gray.shape)
    values = np.empty((len(rows), len(columns), BINS, BINS, ORIENTATIONS), np.float32)
    for i, j in np.ndindex(BINS, BINS):
        weight = np.exp(-((i - (BINS - 1) / 2) ** 2 + (j - (BINS - 1) / 2) ** 2) / (2 * WINDOW_STD**2))
        values[:, :, i, j] = weight * maps[_shifted(rows, i * bin_size), _shifted(columns, j * bin_size)]
    values = values.reshape(-1, BINS * BINS * ORIENTATIONS)
    flat = values.sum(axis=1) < MIN_GRADIENT * (BINS * bin_size) ** 2
    values[flat] = 0
    values = np.minimum(_unit_norm(values), MAX_VALUE)
    center = (BINS - 1) / 2 * bin_size
    y, x = (np.asarray(starts) + center for starts in (rows, columns))
    positions = np.stack(np.meshgrid(y / gray.shape[0], x / gray.shape[1], indexing="ij"), axis=-1)
    return Descriptors(_unit_norm(values), positions.reshape(-1, 2).astype(np.float32))


def _orientation_maps(gray: UInt8[np.ndarray, "height width"], bin_size: int) -> Float32[np.ndarray, "height width 8"]:
    """Return, at each pixel, the histogram of gradients that a spatial bin centered there would have."""
    image = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), SMOOTHING * bin_size, borderType=cv2.BORDER_REPLICATE)
    dx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    magnitude, angle = cv2.cartToPolar(dx, -dy)  # counterclockwise, as in OpenCV
    position = angle * (ORIENTATIONS / (2 * np.pi))
    maps = np.empty((*gray.shape, ORIENTATIONS), np.float32)
    for orientation in range(ORIENTATIONS):
        distance = np.abs(position - orientation)
        distance = np.minimum(distance, ORIENTATIONS - distance)
        maps[..., orientation] = magnitude * np.maximum(1 - distance, 0)  # linear interpolation between orientations
    triangle = 1 - np.abs(np.arange(1 - bin_size, bin_size)) / bin_size  # linear interpolation between spatial bins
    return cv2.sepFilter2D(maps, -1, triangle, triangle, borderType=cv2.BORDER_CONSTANT)


def _grid(side: int, step: int, bin_size: int) -> range:
    """Return the centers of the first bins of the patches along a side; the grid of patches is centered in the image."""
    space = side - BINS * bin_size
    first = bin_size // 2 + space % step // 2
    return range(first, first + space // step * step + 1, step)


def _shifted(positions: range, offset: int) -> slice:
    return slice(positions.start + offset, positions.stop + offset, positions.step)


def _unit_norm(values: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows columns"]:
    """Scale the rows to norm 1; rows of zeros are kept."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
