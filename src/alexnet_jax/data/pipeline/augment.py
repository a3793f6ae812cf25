"""Data augmentation and mean subtraction (paper, sections 2 and 4.1).

The host draws the random parameters and copies crops as uint8. The jitted training step subtracts the mean and adds the color
shift on the device, so only the pixels, the crop and three numbers per image are transferred.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError

ColorScale = Literal["variance", "deviation"]
"""Scale of the color shift along a principal component: "variance", an eigenvalue of the color covariance, as in the paper's
text, or "deviation", its square root, as in the original code."""


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images.

    The defaults follow the paper's text; `configs/source_145.py` has the values of the original code.

    Attributes:
      image_size: side to which stored images are decoded, pixels: the stored size divided by 1, 2, 4 or 8.
      crop: whether to crop at a random position; otherwise at the center.
      last_position: whether crops may touch the bottom and right edges. This gives 33 x 33 positions, as in the original code,
        instead of the 32 x 32 that follow from the paper's factor of 2048.
      images_per_crop: number of consecutive images of a batch that share one crop position and flip; 32 in the original code.
      flip: whether to flip images horizontally with probability 1/2.
      mean: mean to subtract. "crop": the mean image, cropped and flipped like the image, as in the paper's text. "center": the
        center crop of the mean image, as in the original code. "channel": the mean of each color.
      color: scale of the color shift. "variance": eigenvalues of the covariance of pixels in [0, 1], as in the paper's text.
        "deviation": their square roots, as in the original code. None: no color shift.
      color_std: standard deviation of the normal variables by which the scale is multiplied; 0.1 in the paper.
      color_divisor: divisor of images with a color shift, which compensates for their larger variance; 1.1 in the original
        code.
    """

    image_size: int = 256
    crop: bool = True
    last_position: bool = False
    images_per_crop: int = 1
    flip: bool = True
    mean: Literal["crop", "center", "channel"] = "crop"
    color: ColorScale | None = "variance"
    color_std: float = 0.1
    color_divisor: float = 1.0

    def __post_init__(self) -> None:
        if self.images_per_crop < 1 or self.color_std < 0 or self.color_divisor <= 0:
            raise UserError("--images-per-crop must be at least 1, --color-std at least 0, and --color-divisor greater than 0")


class Crop(NamedTuple):
    """Position and flip of the crop of an image, or of each image of a batch.

    Attributes:
      position: row and column of the upper left corner, pixels.
      flipped: whether the crop is flipped horizontally.
    """

    position: Int[np.ndarray, "*batch 2"]
    flipped: Bool[np.ndarray, "*batch"]


class Example(NamedTuple):
    """Labeled image, or batch of labeled images, before normalization.

    Attributes:
      image: RGB pixels, 0 to 255.
      label: class index.
      color_shift: shift to add to red, green and blue, in gray levels.
      crop: crop of the mean image to subtract; None uses the center crop.
    """

    image: UInt8[np.ndarray, "*batch size size 3"]
    label: Int[np.ndarray, "*batch"]
    color_shift: Float[np.ndarray, "*batch 3"]
    crop: Crop | None = None


class AugmentationParams(NamedTuple):
    """Random augmentation parameters of a batch: crops, and shifts of red, green and blue in gray levels."""

    crop: Crop
    color_shift: Float[np.ndarray, "batch 3"]


def draw_augmentation(
    augmentation: Augmentation, colors: ColorComponents, *, border: int, batch_size: int, seed: int, step: int
) -> AugmentationParams:
    """Draw the random augmentation parameters of a batch, a deterministic function of the arguments.

    Args:
      augmentation: augmentation options.
      colors: principal components of the training set's colors.
      border: side of the image minus side of the crop, pixels.
      batch_size: global batch size, over all processes.
      seed: seed of the training run.
      step: training step, from 0.
    """
    rng = np.random.default_rng([seed, step])
    num_crops = -(-batch_size // augmentation.images_per_crop)
    # All parameters are drawn even if unused, so that disabling one does not change the others.
    position = rng.integers(0, max(border, 1) + augmentation.last_position, size=(num_crops, 2), dtype=np.int32)
    flipped = rng.integers(0, 2, size=num_crops).astype(bool)
    normals = rng.normal(0.0, augmentation.color_std, size=(batch_size, 3))
    if not augmentation.crop:
        position[:] = border // 2
    if not augmentation.flip:
        flipped[:] = False
    scale = augmentation.color
    shift = np.zeros((batch_size, 3), np.float32) if scale is None else color_shift(normals, colors, scale)
    crop = Crop(*(np.repeat(values, augmentation.images_per_crop, axis=0)[:batch_size] for values in (position, flipped)))
    return AugmentationParams(crop, shift)


def color_shift(
    normals: Float[np.ndarray, "batch 3"], colors: ColorComponents, scale: ColorScale
) -> Float[np.ndarray, "batch 3"]:
    """Return shifts of red, green and blue, `directions @ (normals * scale)`, in gray levels (paper, section 4.1).

    The paper multiplies the normal variables by eigenvalues. These are variances, so the shift depends on the range of pixel
    values, which is assumed to be [0, 1]; for [0, 255] the shift would be 255 times as large. The original code multiplies by
    standard deviations, for which the range does not matter; on ImageNet its shifts are about twice as large.

    Args:
      normals: normal variables with standard deviation `color_std`, one per image and principal component.
      colors: principal components of the training set's colors.
      scale: scale of the shift along each component.
    """
    scales = colors.deviations if scale == "deviation" else 255 * (colors.deviations / 255) ** 2
    return ((normals * scales) @ colors.directions.T).astype(np.float32)


def resize_mean_image(
    mean_image: Float[np.ndarray, "full full 3"], augmentation: Augmentation
) -> Float[np.ndarray, "size size 3"]:
    """Return the mean image at the size of decoded images, with every pixel set to the mean color if `mean` is "channel".

    Args:
      mean_image: mean of the stored training images, gray levels.
      augmentation: options, of which `image_size` and `mean` are used; the crop is applied later, in the training step.
    """
    resized = downscale(mean_image, augmentation.image_size)
    if augmentation.mean == "channel":
        resized = np.broadcast_to(resized.mean(axis=(0, 1)), resized.shape)
    return np.ascontiguousarray(resized, np.float32)


def downscale(image: Shaped[np.ndarray, "full full 3"], size: int) -> Float[np.ndarray, "size size 3"]:
    """Downscale an image to `size` pixels on a side by averaging square blocks, as decoding a JPEG at a reduced size does."""
    block = image.shape[0] // size
    return image.reshape(size, block, size, block, 3).mean(axis=(1, 3))


def center_crop(image: Any, size: int) -> Any:
    """Return the center crop, `size` pixels on a side, of a NumPy or JAX array [..., height, width, channels]."""
    top, left = ((side - size) // 2 for side in image.shape[-3:-1])
    return image[..., top : top + size, left : left + size, :]
