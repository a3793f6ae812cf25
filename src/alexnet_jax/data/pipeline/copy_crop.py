"""Fast copies of image crops into a batch.

For small images that are cached in memory, the copies take most of the loading time.
"""

import math

import numpy as np
from jaxtyping import Shaped, UInt8

from alexnet_jax.data.images import Pixels

XLA_ALIGNMENT = 64
"""Alignment in bytes of arrays that JAX uses on a CPU without copying them."""


def aligned_empty(*shape: int) -> UInt8[np.ndarray, "..."]:
    """Return an array with any values and the alignment `XLA_ALIGNMENT`."""
    size = math.prod(shape)
    memory = np.empty(size + XLA_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % XLA_ALIGNMENT
    return memory[start : start + size].reshape(shape)


def copy_crop(image: Pixels, top: int, left: int, flipped: bool, out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Copy a square crop, whose side is that of `out`, to `out`."""
    size = len(out)
    crop = image[top : top + size, left : left + size]
    if not flipped:
        out[...] = crop
        return
    # NumPy copies reversed pixels three bytes at a time; copying each color separately is faster.
    crop = crop[:, ::-1]
    for color in range(3):
        out[..., color] = crop[..., color]


class CropBuffer:
    """Buffer for one decoded image, and square crops of it as views.

    The views are created once. Creating them for each image would take half of the time that the interpreter lock is held.
    A crop is copied by assigning its view to rows of the batch with the same type:

        crops = CropBuffer(image_size, crop_size)
        rows, words = crops.rows_of(batch), crops.words_of(batch)
        rows[i] = crops.crops[top, left]  # RGB pixels are in the buffer
        words[i] = crops.flipped[top, left]  # BGR pixels are in the buffer, see `flipped`

    Args:
      image_size: side of the image, pixels.
      crop_size: side of the crops, pixels.

    Attributes:
      pixels: buffer to decode into.
      crops: bytes of the rows of each crop, by its first row and column.
      flipped: words of the rows of each crop of a BGR image, in reverse order of the bytes: the RGB crop flipped horizontally.
        Decoding a JPEG to BGR costs the same as to RGB, and reversing eight bytes at a time is much faster than reversing
        pixels.
    """

    def __init__(self, image_size: int, crop_size: int):
        self.pixels = np.empty((image_size, image_size, 3), np.uint8)
        self._word_bytes = math.gcd(3 * crop_size, 8)
        positions, row = image_size - crop_size + 1, 3 * image_size
        shape = (positions, positions, crop_size)
        self.crops = np.ndarray((*shape, 3 * crop_size), np.uint8, self.pixels, 0, (row, 3, row, 1))
        words = (*shape, 3 * crop_size // self._word_bytes)
        flipped = np.ndarray(words, f">u{self._word_bytes}", self.pixels, 0, (row, 3, row, self._word_bytes))
        self.flipped = flipped[..., ::-1]

    def rows_of(self, batch: UInt8[np.ndarray, "batch size size 3"]) -> UInt8[np.ndarray, "batch size bytes"]:
        """Return a view of a batch of images, to which `crops` can be assigned."""
        return batch.reshape(*batch.shape[:2], 3 * batch.shape[2])

    def words_of(self, batch: UInt8[np.ndarray, "batch size size 3"]) -> Shaped[np.ndarray, "batch size words"]:
        """Return a view of a batch of images, to which `flipped` can be assigned."""
        return self.rows_of(batch).view(f"<u{self._word_bytes}")
