"""Decoding and encoding of images, and the resize and center crop of the paper."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from alexnet_jax.errors import one_line

Pixels = UInt8[np.ndarray, "height width 3"]
"""RGB image, 0 to 255."""
SquarePixels = UInt8[np.ndarray, "side side 3"]
"""Square RGB image, 0 to 255."""

JPEG_QUALITY = 95
"""Quality of encoded JPEGs, 1 to 100."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""Supported file formats, detected from the content: file names can be wrong (one .JPEG of ILSVRC-2012 is a PNG)."""

MAX_PIXELS = 89_478_485
"""Maximum number of pixels of an image. Pillow only warns above it, but decoding a file of a few kilobytes could exhaust the
memory."""

_current = threading.local()


class InvalidImageError(Exception):
    """Image that cannot be decoded; the message is the reason."""


def decode_and_center_crop(data: bytes, size: int) -> SquarePixels:
    """Decode an image file, scale its shorter side to `size`, and crop the central square (paper, section 2).

    Gray images get three equal channels, and 16-bit gray keeps its upper 8 bits. CMYK is converted without a color profile.
    Transparent pixels are blended with white. EXIF orientation is applied. Only the first frame of an animation is used.
    Images smaller than `size` are enlarged.

    Args:
      data: content of an image file in one of `FORMATS`.
      size: side of the result, in pixels.

    Raises:
      InvalidImageError: if the file is truncated, is not an image, has more than 89 million pixels, or has 32-bit pixels,
        whose value range is unknown.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InvalidImageError(f"{image.width} x {image.height} pixels exceeds limit of {MAX_PIXELS} pixels")
            image.draft("RGB", (size, size))  # decodes a large JPEG at a reduced scale, but not below `size`
            return center_crop_image(image, size)
    except InvalidImageError:
        raise
    except UnidentifiedImageError as error:
        raise InvalidImageError(f"unsupported file format; expected one of {', '.join(FORMATS)}") from error
    except Exception as error:  # on damaged files, Pillow raises exceptions of many types
        raise InvalidImageError(one_line(error)) from error


def center_crop_image(image: Image.Image, size: int) -> SquarePixels:
    """Convert an image of Pillow as `decode_and_center_crop` does.

    Raises:
      InvalidImageError: if the image has 32-bit pixels, or none.
    """
    if not all(image.size):
        raise InvalidImageError(f"it has {image.width} x {image.height} pixels")
    return _center_crop(_to_rgb(ImageOps.exif_transpose(image)), size)


@contextmanager
def report_warnings(report: Callable[[str], None]) -> Iterator[None]:
    """Report Pillow's warnings about damaged or unusual files while the block runs, each once per image.

    Args:
      report: function that is called with the name of the image, see `named_image`, and the warning.
    """
    seen: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_named(message: Warning | str, category: type[Warning], *location: Any, **options: Any) -> None:
            name = getattr(_current, "name", None)
            if name is None:
                show(message, category, *location, **options)
            elif (line := f"{name}: {' '.join(str(message).split())}") not in seen:
                seen.add(line)
                report(line)

        warnings.filterwarnings("always", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # an error, see MAX_PIXELS
        warnings.showwarning = show_named
        yield


@contextmanager
def named_image(name: str) -> Iterator[None]:
    """Set the name under which `report_warnings` reports the warnings of this thread."""
    _current.name = name
    try:
        yield
    finally:
        _current.name = None


def shorter_side(image: bytes | Pixels) -> int | None:
    """Return the shorter side of an image, in pixels, or None if it cannot be read."""
    if not isinstance(image, bytes):
        return min(image.shape[:2])
    try:
        with Image.open(BytesIO(image), formats=FORMATS) as opened:
            return min(opened.size)
    except Exception:  # the caller that decodes the pixels reports the error
        return None


def resize_and_center_crop(pixels: Pixels, size: int) -> SquarePixels:
    """Scale the shorter side to `size` and crop the central square; return `pixels` itself if no change is needed."""
    return pixels if pixels.shape == (size, size, 3) else _center_crop(Image.fromarray(pixels), size)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InvalidImageError("32-bit pixels are not supported")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def _center_crop(image: Image.Image, size: int) -> SquarePixels:
    # Only the square is resampled: resizing a whole image of 1 by 1,000,000 pixels first would exhaust the memory.
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))


def encode_jpeg(pixels: Pixels) -> bytes:
    """Encode an image as JPEG at quality 95 with 4:2:0 chroma subsampling, as is usual for photos."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorsubsampling="420")


def decode_jpeg(
    jpeg: bytes | memoryview, size: int, *, colors: Literal["RGB", "BGR"] = "RGB", out: Pixels | None = None
) -> Pixels:
    """Decode a square JPEG at its full size, or at a half, a quarter or an eighth of it.

    Args:
      jpeg: content of a JPEG file.
      size: side of the result, in pixels.
      colors: channel order of the result; both orders take the same time.
      out: buffer to decode into; None allocates one.

    Raises:
      InvalidImageError: if the JPEG is damaged or cannot be decoded at this size.
    """
    try:
        pixels = simplejpeg.decode_jpeg(jpeg, colors, False, False, size, size, 1, out)  # keywords take longer
    except ValueError as error:
        raise InvalidImageError(str(error)) from error
    if pixels.shape[:2] != (size, size):
        height, width = pixels.shape[:2]
        raise InvalidImageError(f"a JPEG of {width}x{height} pixels cannot be decoded at {size}x{size}")
    return pixels
