"""Ten classes of pictures drawn by code, for machines that have no data set.

An object has one of five shapes and one of five textures, and it takes both to tell the class. Its colors, place, size and
turn are drawn at random, as are the backdrop, the clutter, the light that falls across the scene and the color of that
light: a network has to see form, and the paper's crops, mirroring and color shifts are of use.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.images import Pixels
from alexnet_jax.data.sources.base import SIZE, Picture, Source

NAME = "synthetic"
IMAGES = {"train": 3000, "validation": 500}

Plane = Float[np.ndarray, "height width"]
"""A number for each pixel."""
Field = Callable[[Plane, Plane], Plane]
"""From coordinates u and v of pixels to a number for each."""

# Signed distance to the edge, about 1 at the middle, negative outside; u and v are coordinates in units of the radius.
SHAPES: dict[str, Field] = {
    "disc": lambda u, v: 1 - np.hypot(u, v),
    "triangle": lambda u, v: 0.55 - np.maximum(v, 0.866 * np.abs(u) - 0.5 * v),
    "ring": lambda u, v: 0.3 - np.abs(np.hypot(u, v) - 0.7),
    "square": lambda u, v: 0.85 - np.maximum(np.abs(u), np.abs(v)),
    "star": lambda u, v: 0.62 + 0.35 * np.cos(5 * np.arctan2(v, u)) - np.hypot(u, v),
}
# Which of the object's two colors a place has: positive the one, negative the other.
TEXTURES: dict[str, Field] = {
    "striped": lambda u, v: np.sin(9 * u),
    "dotted": lambda u, v: np.sin(9 * u) * np.sin(9 * v) - 0.4,
    "checked": lambda u, v: 3 * np.sin(6 * u) * np.sin(6 * v),
    "rippled": lambda u, v: np.sin(14 * np.hypot(u, v)),
    "plain": lambda u, v: np.ones_like(u),
}
# Each shape comes in two textures and each texture in two shapes, so neither alone tells the class.
CLASSES = [f"{list(TEXTURES)[(i + j) % 5]} {shape}" for i, shape in enumerate(SHAPES) for j in (0, 1)]


class SyntheticSource(Source):
    """The pictures, drawn as they are asked for."""

    description = "pictures drawn by code"
    classes = CLASSES
    images = IMAGES

    def read(self, split: str, index: int) -> Picture:
        label = index % len(CLASSES)
        rng = np.random.default_rng([list(IMAGES).index(split), index])
        return Picture(f"{split}/{CLASSES[label]}/{index:05}.jpg", label, draw_image(CLASSES[label], rng))

    def fingerprint(self) -> str:
        return ""


def draw_image(name: str, rng: np.random.Generator) -> Pixels:
    """A 256x256 picture of an object of the class `name`."""
    texture, shape = name.split()
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    picture = _backdrop(rows, columns, rng)
    for _ in range(rng.integers(1, 5)):
        _paint_clutter(picture, rows, columns, rng)
    radius = rng.uniform(60, 95)
    middle = rng.uniform(0.85 * radius, SIZE - 0.85 * radius, size=2)
    _paint_object(picture, SHAPES[shape], TEXTURES[texture], middle, radius, rng)
    for _ in range(rng.integers(0, 2)):
        _paint_clutter(picture, rows, columns, rng)
    picture *= _light(rows, columns, rng)[..., None]
    picture *= rng.uniform(0.6, 1.1, size=3).astype(np.float32)
    picture += rng.normal(0, 8, size=(SIZE, SIZE, 1)).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _color(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    return rng.uniform(20, 255, size=3).astype(np.float32)


def _backdrop(rows: Plane, columns: Plane, rng: np.random.Generator) -> Float[np.ndarray, "height width 3"]:
    """One color that turns into another, in waves."""
    angle, waves, phase = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 2), rng.uniform(0, 2 * math.pi)
    along = (rows * math.sin(angle) + columns * math.cos(angle)) * (2 * math.pi * waves / SIZE)
    share = (0.5 + 0.5 * np.sin(along + phase))[..., None]
    return share * _color(rng) + (1 - share) * _color(rng)


def _light(rows: Plane, columns: Plane, rng: np.random.Generator) -> Plane:
    """Brighter to one side, as under a window."""
    angle = rng.uniform(0, 2 * math.pi)
    across = (rows * math.sin(angle) + columns * math.cos(angle)) / SIZE
    return 1 + rng.uniform(0, 0.6) * (across - across.mean())


def _paint(picture: np.ndarray, inside: Plane, color: np.ndarray) -> None:
    share = np.clip(inside, 0, 1)[..., None]
    picture += share * (color - picture)


def _paint_clutter(picture: np.ndarray, rows: Plane, columns: Plane, rng: np.random.Generator) -> None:
    """A bar or an ellipse of one color, smaller than the object."""
    middle, angle = rng.uniform(0, SIZE, size=2), rng.uniform(0, math.pi)
    length, width = rng.uniform(15, 50), rng.uniform(4, 18)
    box = _box(middle, length + width)
    u, v = _turned(rows[box] - middle[0], columns[box] - middle[1], angle)
    if rng.integers(2):
        inside = np.minimum(length - np.abs(u), width - np.abs(v))
    else:
        inside = (1 - np.hypot(u / length, v / width)) * width
    _paint(picture[box], inside, _color(rng))


def _paint_object(
    picture: np.ndarray, shape: Field, texture: Field, middle: np.ndarray, radius: float, rng: np.random.Generator
) -> None:
    box = _box(middle, 1.25 * radius)  # a square's corners reach so far
    rows, columns = np.mgrid[box].astype(np.float32)
    rows, columns = (rows - middle[0]) / radius, (columns - middle[1]) / radius
    inside = shape(*_turned(rows, columns, rng.uniform(-0.4, 0.4))) * radius
    light = texture(*_turned(rows, columns, rng.uniform(0, 2 * math.pi))) * radius / 9
    dark_color, light_color = 0.45 * _color(rng), 128 + 0.5 * _color(rng)
    if rng.integers(2):
        dark_color, light_color = light_color, dark_color
    share = np.clip(0.5 + light, 0, 1)[..., None]
    _paint(picture[box], inside, share * light_color + (1 - share) * dark_color)


def _turned(rows: Plane, columns: Plane, angle: float) -> tuple[Plane, Plane]:
    return rows * math.cos(angle) - columns * math.sin(angle), rows * math.sin(angle) + columns * math.cos(angle)


def _box(middle: np.ndarray, reach: float) -> tuple[slice, slice]:
    """The part of the picture within `reach` of `middle`."""
    low = np.maximum(0, np.floor(middle - reach)).astype(int)
    high = np.minimum(SIZE, np.ceil(middle + reach) + 1).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])
