"""Synthetic images in ten classes, for training without a downloaded data set.

Each image shows an object with one of five shapes and one of five textures; the class is a combination of the two. Colors,
position, size and rotation of the object are random, and so are the background, the clutter, the brightness gradient and the
color of the light. The class therefore depends on shape and texture only, and the paper's crops, flips and color shifts
improve generalization.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.images import Pixels
from alexnet_jax.data.sources.base import SIZE, Source, SourceImage

NAME = "synthetic"
"""Name of the data set."""
NUM_IMAGES = {"train": 3000, "validation": 500}

Plane = Float[np.ndarray, "height width"]
"""One value per pixel."""
ScalarField = Callable[[Plane, Plane], Plane]
"""Function that maps the coordinates u and v of each pixel to one value per pixel."""

# Approximate distance to the edge, positive inside the object and negative outside; u and v are in units of the radius.
SHAPES: dict[str, ScalarField] = {
    "disc": lambda u, v: 1 - np.hypot(u, v),
    "triangle": lambda u, v: 0.55 - np.maximum(v, 0.866 * np.abs(u) - 0.5 * v),
    "ring": lambda u, v: 0.3 - np.abs(np.hypot(u, v) - 0.7),
    "square": lambda u, v: 0.85 - np.maximum(np.abs(u), np.abs(v)),
    "star": lambda u, v: 0.62 + 0.35 * np.cos(5 * np.arctan2(v, u)) - np.hypot(u, v),
}
# The sign selects one of the object's two colors.
TEXTURES: dict[str, ScalarField] = {
    "striped": lambda u, v: np.sin(9 * u),
    "dotted": lambda u, v: np.sin(9 * u) * np.sin(9 * v) - 0.4,
    "checked": lambda u, v: 3 * np.sin(6 * u) * np.sin(6 * v),
    "rippled": lambda u, v: np.sin(14 * np.hypot(u, v)),
    "plain": lambda u, v: np.ones_like(u),
}
# Each shape has two textures and each texture two shapes, so neither of them alone determines the class.
CLASSES = [f"{list(TEXTURES)[(i + j) % 5]} {shape}" for i, shape in enumerate(SHAPES) for j in (0, 1)]


class SyntheticSource(Source):
    """Synthetic images, drawn when they are read."""

    description = "synthetic images"
    classes = CLASSES
    num_images = NUM_IMAGES

    def read(self, split: str, index: int) -> SourceImage:
        label = index % len(CLASSES)
        rng = np.random.default_rng([list(NUM_IMAGES).index(split), index])
        return SourceImage(f"{split}/{CLASSES[label]}/{index:05}.jpg", label, draw_image(CLASSES[label], rng))

    def fingerprint(self) -> str:
        return ""


def draw_image(class_name: str, rng: np.random.Generator) -> Pixels:
    """Draw a 256x256 image of a random object of one of `CLASSES`."""
    texture, shape = class_name.split()
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    image = _draw_background(rows, columns, rng)
    for _ in range(rng.integers(1, 5)):
        _draw_clutter(image, rows, columns, rng)
    radius = rng.uniform(60, 95)
    center = rng.uniform(0.85 * radius, SIZE - 0.85 * radius, size=2)
    _draw_object(image, SHAPES[shape], TEXTURES[texture], center, radius, rng)
    for _ in range(rng.integers(0, 2)):
        _draw_clutter(image, rows, columns, rng)
    image *= _brightness_gradient(rows, columns, rng)[..., None]
    image *= rng.uniform(0.6, 1.1, size=3).astype(np.float32)
    image += rng.normal(0, 8, size=(SIZE, SIZE, 1)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _random_color(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    return rng.uniform(20, 255, size=3).astype(np.float32)


def _draw_background(rows: Plane, columns: Plane, rng: np.random.Generator) -> Float[np.ndarray, "height width 3"]:
    """Return a blend of two colors that varies as a sine wave in a random direction."""
    angle, waves, phase = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 2), rng.uniform(0, 2 * math.pi)
    position = (rows * math.sin(angle) + columns * math.cos(angle)) * (2 * math.pi * waves / SIZE)
    alpha = (0.5 + 0.5 * np.sin(position + phase))[..., None]
    return alpha * _random_color(rng) + (1 - alpha) * _random_color(rng)


def _brightness_gradient(rows: Plane, columns: Plane, rng: np.random.Generator) -> Plane:
    """Return a brightness factor, 1 on average, that increases linearly in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    position = (rows * math.sin(angle) + columns * math.cos(angle)) / SIZE
    return 1 + rng.uniform(0, 0.6) * (position - position.mean())


def _blend(image: np.ndarray, coverage: Plane, color: np.ndarray) -> None:
    alpha = np.clip(coverage, 0, 1)[..., None]
    image += alpha * (color - image)


def _draw_clutter(image: np.ndarray, rows: Plane, columns: Plane, rng: np.random.Generator) -> None:
    """Draw a bar or an ellipse of one color, smaller than the object."""
    center, angle = rng.uniform(0, SIZE, size=2), rng.uniform(0, math.pi)
    length, width = rng.uniform(15, 50), rng.uniform(4, 18)
    box = _bounding_box(center, length + width)
    u, v = _rotate(rows[box] - center[0], columns[box] - center[1], angle)
    if rng.integers(2):
        coverage = np.minimum(length - np.abs(u), width - np.abs(v))
    else:
        coverage = (1 - np.hypot(u / length, v / width)) * width
    _blend(image[box], coverage, _random_color(rng))


def _draw_object(
    image: np.ndarray, shape: ScalarField, texture: ScalarField, center: np.ndarray, radius: float, rng: np.random.Generator
) -> None:
    box = _bounding_box(center, 1.25 * radius)  # the corners of a square are 0.85 * sqrt(2) = 1.2 radii from its center
    rows, columns = np.mgrid[box].astype(np.float32)
    rows, columns = (rows - center[0]) / radius, (columns - center[1]) / radius
    coverage = shape(*_rotate(rows, columns, rng.uniform(-0.4, 0.4))) * radius
    pattern = texture(*_rotate(rows, columns, rng.uniform(0, 2 * math.pi))) * radius / 9
    dark_color, light_color = 0.45 * _random_color(rng), 128 + 0.5 * _random_color(rng)
    if rng.integers(2):
        dark_color, light_color = light_color, dark_color
    alpha = np.clip(0.5 + pattern, 0, 1)[..., None]
    _blend(image[box], coverage, alpha * light_color + (1 - alpha) * dark_color)


def _rotate(rows: Plane, columns: Plane, angle: float) -> tuple[Plane, Plane]:
    return rows * math.cos(angle) - columns * math.sin(angle), rows * math.sin(angle) + columns * math.cos(angle)


def _bounding_box(center: np.ndarray, extent: float) -> tuple[slice, slice]:
    """Return the slices of rows and columns within `extent` of `center`, clipped to the image."""
    low = np.maximum(0, np.floor(center - extent)).astype(int)
    high = np.minimum(SIZE, np.ceil(center + extent) + 1).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])
