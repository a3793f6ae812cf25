"""Mean images of other programs, converted to RGB, 0 to 255.

.binaryproto            image or one value per channel, BGR: Caffe
.npy [size, size, 3]    image, RGB: the mean_image.npy of a run
.npy [3, size, size]    image, RGB or BGR: Caffe's ilsvrc_2012_mean.npy is BGR
.npy [3]                one value per channel, RGB or BGR

The order of the channels of the last two is recognized if the values are the known means of ImageNet's channels, or all equal.
Otherwise it has to be given.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.npy_file import read_array
from alexnet_jax.data.statistics import check_mean_image
from alexnet_jax.errors import UserError
from alexnet_jax.weights.caffe_layers import parse_blob

ColorOrder = Literal["rgb", "bgr"]

IMAGENET_MEAN = (123.0, 117.0, 104.0)
"""Per-channel mean (red, green, blue; 0 to 255) that Caffe's examples subtract instead of a mean image."""
TOLERANCE = 1.5
"""Maximum difference of the published means of ImageNet's channels, in gray levels: 123.675, 116.28, 103.53 in torchvision."""


def uniform_mean(color: Sequence[float], size: int) -> Float[np.ndarray, "size size 3"]:
    """Return a mean image of one color, float32."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(color, np.float32), (size, size, 3)))


def read_mean_image(path: Path, size: int, colors: ColorOrder | None = None) -> Float[np.ndarray, "size size 3"]:
    """Read a mean image, or a mean color, as RGB with values from 0 to 255.

    Args:
      path: .binaryproto or .npy file, in one of the forms above.
      size: side to which images are decoded, pixels.
      colors: order of the channels in the file; None uses the one of the form.

    Raises:
      UserError: if the file cannot be read, has a different form, size or range, or the order of its channels is unknown.
    """
    if path.suffix == ".binaryproto":
        try:
            mean = parse_blob(memoryview(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"cannot read the mean image {path}: {error}; download it again") from error
    else:
        mean = read_array(path, "pass another --mean")
    if not (np.issubdtype(mean.dtype, np.floating) or np.issubdtype(mean.dtype, np.integer)):
        raise UserError(f"the mean image {path} has values of type {mean.dtype}, expected numbers from 0 to 255")
    convention: ColorOrder | None = "bgr" if path.suffix == ".binaryproto" else None
    shape = mean.shape
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.shape in ((3,), (3, 1, 1), (1, 1, 3), (1, 3)):
        mean = np.broadcast_to(mean.reshape(3), (size, size, 3))
    elif mean.ndim == 3 and len(mean) == 3:
        mean = mean.transpose(1, 2, 0)
    elif mean.ndim == 3 and mean.shape[-1] == 3:
        convention = "rgb"
    if mean.ndim != 3 or mean.shape[0] != mean.shape[1] or mean.shape[2] != 3:
        raise UserError(f"the mean image {path} has shape {shape}, expected [size, size, 3], [3, size, size] or [3]")
    _check_values(mean, path)
    if len(mean) != size:
        raise UserError(
            f"the mean image {path} has {len(mean)} pixels, but images are decoded to {size} pixels: pass the mean of such "
            f"images, one value per channel, or, if the network was trained on images of {len(mean)}, --image-size {len(mean)}"
        )
    order = colors or _color_order(mean, convention, path)
    mean = np.ascontiguousarray(mean if order == "rgb" else mean[..., ::-1], np.float32)
    check_mean_image(mean, size, path, "pass another --mean")
    return mean


def _check_values(mean: np.ndarray, path: Path) -> None:
    if not np.isfinite(mean).all() or mean.min() < 0 or mean.max() > 255:
        low, high = (float(value) for value in (mean.min(), mean.max()))
        raise UserError(f"the mean image {path} has values from {low:g} to {high:g}, expected 0 to 255: pass another --mean")
    if 0 < mean.max() <= 1:
        raise UserError(f"the mean image {path} has values from 0 to 1, expected 0 to 255: multiply them by 255")


def _color_order(mean: np.ndarray, convention: ColorOrder | None, path: Path) -> ColorOrder:
    color = mean.mean(axis=(0, 1), dtype=np.float64)
    if (mean == mean[..., :1]).all():
        return "rgb"  # gray: both orders are the same
    known: ColorOrder | None = None
    if np.abs(color - IMAGENET_MEAN).max() <= TOLERANCE:
        known = "rgb"
    elif np.abs(color[::-1] - IMAGENET_MEAN).max() <= TOLERANCE:
        known = "bgr"
    order = known or convention
    if order is None or (convention and order != convention):
        raise UserError(
            f"the order of the channels of the mean {path} is unknown (means {', '.join(f'{value:.1f}' for value in color)}): "
            "pass --mean-colors rgb, or bgr as in Caffe"
        )
    return order
