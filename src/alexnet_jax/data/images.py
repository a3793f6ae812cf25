"""Files to pixels and back."""

from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps

Pixels = UInt8[np.ndarray, "height width 3"]

JPEG_QUALITY = 95


class BadImage(Exception):
    """A file that cannot be read as a picture; the text says why."""


def read_square(path: Path, size: int) -> Pixels:
    """A picture file as the paper prepares it: shorter side scaled to `size`, then the central square (section 2).

    Raises:
      BadImage: if the file is truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # a large JPEG is decoded at a half or a quarter, never below `size`
            image = ImageOps.exif_transpose(image).convert("RGB")
            scale = size / min(image.size)
            width, height = (max(size, round(side * scale)) for side in image.size)
            left, top = (width - size) // 2, (height - size) // 2
            resized = image.resize((width, height), Image.Resampling.BICUBIC)
            return np.asarray(resized.crop((left, top, left + size, top + size)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, not the picture's
        raise BadImage(" ".join(str(error).split())) from error


def encode_jpeg(pixels: Pixels) -> bytes:
    """JPEG at quality 95, colour at half the resolution, as photographs come."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorsubsampling="420")


def decode_jpeg(jpeg: bytes, size: int, *, colors: Literal["RGB", "BGR"] = "RGB", out: Pixels | None = None) -> Pixels:
    """A square JPEG, decoded to `size` pixels a side: its own size or a half, a quarter, an eighth of it.

    `out` is memory to decode into. The order of `colors` costs nothing.
    """
    try:
        pixels = simplejpeg.decode_jpeg(jpeg, colors, min_height=size, min_width=size, min_factor=1, buffer=out)
    except ValueError as error:
        raise BadImage(str(error)) from error
    if pixels.shape[:2] != (size, size):
        height, width = pixels.shape[:2]
        raise BadImage(f"it is {width}x{height}, which does not halve down to {size}x{size}")
    return pixels
