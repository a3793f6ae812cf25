"""Cutting a part out of an image straight into a batch, flipped or not. A copy is most of what a small image costs."""

import math

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "height width 3"]
"""Gray levels."""


def copy_crop(image: Image, top: int, left: int, flipped: bool, out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Writes the square at (top, left) to `out`, exchanging left and right if it is flipped."""
    size = len(out)
    part = image[top : top + size, left : left + size]
    if not flipped:
        out[...] = part
        return
    # NumPy copies pixels backwards three bytes at a time; each color by itself is four times as fast.
    part = part[:, ::-1]
    for color in range(3):
        out[..., color] = part[..., color]


def copy_reversed(image: Image, top: int, left: int, out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Writes the square at (top, left) to `out` with the bytes of each row back to front: flipped, and red for blue.

    A JPEG can be decoded with blue first at no cost, and reversing bytes eight at a time is 20 times as fast as pixels.
    """
    size = len(out)
    word = math.gcd(3 * size, 8)
    words = (size, 3 * size // word)
    offset = top * image.strides[0] + 3 * left
    part = np.ndarray(words, f">u{word}", image, offset, (image.strides[0], word))
    out.reshape(size, -1).view(f"<u{word}")[...] = part[:, ::-1]
