"""Pictures as people have them to square pixels, and pixels to what a record holds."""

import warnings
from io import BytesIO
from typing import Literal

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = UInt8[np.ndarray, "height width 3"]
"""Red, green and blue, gray levels."""
Square = UInt8[np.ndarray, "side side 3"]
"""The same, as wide as high."""

JPEG_QUALITY = 95

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""What a file may be, by its content: a name may lie (one JPEG of ILSVRC-2012 is a PNG)."""

# Above Image.MAX_IMAGE_PIXELS, 89 million, a file of a few kilobytes could fill the memory. Pillow only warns of it.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class BadImage(Exception):
    """A file that cannot be read as a picture; the text says why."""


def read_square(data: bytes, size: int) -> Square:
    """A picture file as the paper prepares it: shorter side scaled to `size`, then the central square (section 2).

    Gray becomes three equal channels; 16-bit gray keeps its upper 8 bits; CMYK is converted without a color profile; what
    is transparent becomes white; a picture that its EXIF data say is lying is set upright; of an animation, the first
    picture counts. Small pictures are enlarged, however small.

    Raises:
      BadImage: if the file is truncated, no picture, of more than 89 million pixels, or of 32-bit pixels, whose scale nobody
        knows.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            image.draft("RGB", (size, size))  # a large JPEG is decoded at a half or a quarter, never below `size`
            ImageOps.exif_transpose(image, in_place=True)
            return _square(_rgb(image), size)
    except UnidentifiedImageError as error:
        raise BadImage(f"it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # on damaged files Pillow raises whatever it stumbles over
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error


def shorter_side(picture: bytes | Pixels) -> int | None:
    """Of a picture as a file or as pixels; None if it cannot be read."""
    if not isinstance(picture, bytes):
        return min(picture.shape[:2])
    try:
        with Image.open(BytesIO(picture), formats=FORMATS) as image:
            return min(image.size)
    except Exception:  # as above; whoever reads the pixels says why
        return None


def square(pixels: Pixels, size: int) -> Square:
    """Pixels scaled and cropped as `read_square` does; those that fit stay as they are."""
    return pixels if pixels.shape == (size, size, 3) else _square(Image.fromarray(pixels), size)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage("its pixels have 32 bits")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def _square(image: Image.Image, size: int) -> Square:
    # Only the square is resampled: a strip of one pixel by a million would not fit into memory once enlarged.
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))


def encode_jpeg(pixels: Pixels) -> bytes:
    """JPEG at quality 95, color at half the resolution, as photographs come."""
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
