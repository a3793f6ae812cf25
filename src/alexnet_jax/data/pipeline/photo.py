"""Preprocessing of a single photo in the same way as the images of a data set."""

import numpy as np
from jaxtyping import UInt8

from alexnet_jax.console import console
from alexnet_jax.data.images import (
    InvalidImageError,
    decode_and_center_crop,
    decode_jpeg,
    encode_jpeg,
    named_image,
    report_warnings,
)
from alexnet_jax.data.manifest import Encoding
from alexnet_jax.data.pipeline.augment import downscale
from alexnet_jax.errors import UserError


def decode_as_stored(data: bytes, name: str, size: int, encoding: Encoding, image_size: int) -> UInt8[np.ndarray, "side side 3"]:
    """Decode an image file as `decode_photo` does, then encode and decode it like an image of a data set.

    Args:
      data: content of an image file of any format that `prepare` accepts.
      name: name of the file, for messages.
      size: side of stored images, pixels.
      encoding: encoding of stored images.
      image_size: side to which stored images are decoded, pixels.

    Raises:
      UserError: if the file is not an image, or is damaged.
    """
    square = decode_photo(data, name, size)
    if encoding == "jpeg":
        return decode_jpeg(encode_jpeg(square), image_size)
    return square if image_size == size else downscale(square, image_size).round().astype(np.uint8)


def decode_photo(data: bytes, name: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode an image file, resize its shorter side to `size` pixels and crop the central square.

    Args:
      data: content of an image file of any format that `prepare` accepts.
      name: name of the file, for messages.
      size: side of the result, pixels.

    Raises:
      UserError: if the file is not an image, or is damaged.
    """
    with report_warnings(console.print), named_image(name):
        return decode_without_warnings(data, name, size)


def decode_without_warnings(data: bytes, name: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode an image file as `decode_photo` does, in any thread: printing warnings changes settings of all threads."""
    try:
        return decode_and_center_crop(data, size)
    except InvalidImageError as error:
        raise UserError(f"{name} cannot be read as an image: {error}") from error
