"""A photo as a query: made what the images of a data set have been made."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from alexnet_jax.data.images import BadImage, decode_jpeg, encode_jpeg, read_square
from alexnet_jax.data.pipeline.augment import downscale
from alexnet_jax.data.records import Encoding
from alexnet_jax.errors import UserError


def read_photo(file: Path, *, size: int, encoding: Encoding, image_size: int) -> UInt8[np.ndarray, "side side 3"]:
    """A photo for the network: shorter side scaled, central square, stored and decoded again, as `prepare` and training do.

    Args:
      file: of any of the formats that `prepare` takes.
      size: side of the stored image, pixels.
      encoding: how it would be stored.
      image_size: side that it is decoded to, pixels.

    Raises:
      UserError: if it is not there, or no picture.
    """
    try:
        square = read_square(file.read_bytes(), size)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except BadImage as error:
        raise UserError(f"{file} cannot be read as a picture: {error}") from error
    if encoding == "jpeg":
        return decode_jpeg(encode_jpeg(square), image_size)
    return square if image_size == size else downscale(square, image_size).round().astype(np.uint8)
