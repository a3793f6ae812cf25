"""How training images vary, and what is subtracted from them (paper, sections 2 and 4.1): the arithmetic, with no file read.

The host draws crops, mirrorings and color shifts and cuts the crops out; all of it is uint8 but for three numbers an image.
Mean and shift meet the pixels on the device, inside the jitted step.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError

ColorScale = Literal["variance", "deviation"]
"""What the draws of `color_shift` are multiplied by: eigenvalues, as the paper says, or deviations, as its code does."""


@dataclass(frozen=True)
class Augmentation:
    """How training images vary. The defaults follow the paper's prose; its code is in `experiments/source_145.py`.

    Attributes:
      image_size: side to which prepared images are decoded, pixels: their own or a half, a quarter, an eighth of it.
      crop: random position of the network's input within the image; otherwise its center.
      last_position: whether the crop may lie at the far edge: 33 x 33 positions, as in the code, instead of the 32 x 32
        that the paper's factor of 2048 implies.
      images_per_crop: how many consecutive images of a batch share one position and mirroring; 32 in the code.
      flip: mirror every second image.
      mean: what is subtracted. "crop": from each pixel its own mean over the training set, so the mean image is cropped and
        flipped with the image, as the prose says; "center": the center of the mean image, wherever the crop lies, as the
        code does; "channel": one number for each color.
      color: size of the shift along a principal component of the colors, in units of `color_std` draws: its "variance" is
        the eigenvalue of pixels scaled to [0, 1], as the paper says; its "deviation" the root, as the code does; None is no
        shift.
      color_std: standard deviation of the draws.
      color_divisor: what training images are divided by to make up for the shift; 1.1 in the code.
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
            raise UserError("augmentation takes one image per crop or more, a color std not below 0, a color divisor above 0")


class Crop(NamedTuple):
    """What part of an image was taken; stacked, of a batch.

    Attributes:
      position: row and column of its upper left corner, pixels.
      flipped: whether left and right were then exchanged.
    """

    position: Int[np.ndarray, "*batch 2"]
    flipped: Bool[np.ndarray, "*batch"]


class Example(NamedTuple):
    """An image for the network; stacked, a batch.

    Attributes:
      image: pixels, [size, size, 3], not yet normalized.
      label: number of its class.
      color_shift: what to add to red, green and blue, gray levels.
      crop: the part of the mean image to subtract; None is its center.
    """

    image: UInt8[np.ndarray, "*batch size size 3"]
    label: Int[np.ndarray, "*batch"]
    color_shift: Float[np.ndarray, "*batch 3"]
    crop: Crop | None = None


class AugmentationParams(NamedTuple):
    """The chances of a batch: its crops, and shifts of red, green and blue in gray levels."""

    crop: Crop
    color_shift: Float[np.ndarray, "batch 3"]


def draw_augmentation(
    augmentation: Augmentation, colors: ColorComponents, *, border: int, images: int, seed: int, step: int
) -> AugmentationParams:
    """The chances of the batch of one step: a function of seed and step, and of nothing read before.

    Args:
      augmentation: what is drawn.
      colors: principal components of the training set's colors.
      border: how much larger images are than crops, pixels.
      images: in the batch, those of all processes together.
      seed: of the training.
      step: of the training, from 0.
    """
    rng = np.random.default_rng([seed, step])
    crops = -(-images // augmentation.images_per_crop)
    # Everything is drawn whether it is used or not, so that leaving one thing out changes nothing else.
    position = rng.integers(0, max(border, 1) + augmentation.last_position, size=(crops, 2), dtype=np.int32)
    flipped = rng.integers(0, 2, size=crops).astype(bool)
    normals = rng.normal(0.0, augmentation.color_std, size=(images, 3))
    if not augmentation.crop:
        position[:] = border // 2
    if not augmentation.flip:
        flipped[:] = False
    scale = augmentation.color
    shift = np.zeros((images, 3), np.float32) if scale is None else color_shift(normals, colors, scale)
    crop = Crop(*(np.repeat(values, augmentation.images_per_crop, axis=0)[:images] for values in (position, flipped)))
    return AugmentationParams(crop, shift)


def color_shift(draws: Float[np.ndarray, "batch 3"], colors: ColorComponents, scale: ColorScale) -> Float[np.ndarray, "batch 3"]:
    """Shifts of (red, green, blue) in gray levels for one draw per component (paper, section 4.1).

    The paper multiplies draws by eigenvalues, which are squares: their unit matters, and with pixels in [0, 1] the shift is
    of a sensible size. The code multiplies by standard deviations, on any scale: about twice as much on ImageNet.
    """
    sizes = colors.deviations if scale == "deviation" else 255 * (colors.deviations / 255) ** 2
    return ((draws * sizes) @ colors.directions.T).astype(np.float32)


def mean_to_subtract(
    mean_image: Float[np.ndarray, "full full 3"], augmentation: Augmentation
) -> Float[np.ndarray, "size size 3"]:
    """The mean image at the size that images are decoded to; which part of it an image meets, the batch says."""
    small = downscale(mean_image, augmentation.image_size)
    if augmentation.mean == "channel":
        small = np.broadcast_to(small.mean(axis=(0, 1)), small.shape)
    return np.ascontiguousarray(small, np.float32)


def downscale(image: Shaped[np.ndarray, "full full 3"], size: int) -> Float[np.ndarray, "size size 3"]:
    """Means over square blocks of pixels, which is what decoding a JPEG at a fraction of its size comes to."""
    block = image.shape[0] // size
    return image.reshape(size, block, size, block, 3).mean(axis=(1, 3))


def center_crop(image: Any, size: int) -> Any:
    """Central square of `size` pixels of [..., height, width, channels]; of NumPy or JAX, as is what comes back."""
    top, left = ((side - size) // 2 for side in image.shape[-3:-1])
    return image[..., top : top + size, left : left + size, :]
