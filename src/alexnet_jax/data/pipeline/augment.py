"""Data augmentation and mean subtraction (paper, sections 2 and 4.1).

The host draws the random parameters (`transforms`) and copies crops as uint8. The jitted training step subtracts the mean and
adds the color shift on the device, so only the pixels, the crop and three numbers per image are transferred.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from alexnet_jax.data.pipeline.transforms import PCAColor, RandomCrop, RandomFlip, Transform
from alexnet_jax.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images.

    The defaults follow the paper's text; `SOURCE_AUGMENTATION` has the values of the original code.

    Attributes:
      image_size: side to which stored images are decoded, pixels: the stored size divided by 1, 2, 4 or 8.
      transforms: random transforms, applied in order; at most one of each class.
      mean: mean to subtract. "crop": the mean image, cropped and flipped like the image, as in the paper's text. "center": the
        center crop of the mean image, as in the original code. "channel": the mean of each color.

    Examples:
      >>> Augmentation().without("PCAColor").transforms
      (RandomCrop(last_position=False, images_per_crop=1), RandomFlip(images_per_flip=1))
    """

    image_size: int = 256
    transforms: tyro.conf.Fixed[tuple[Transform, ...]] = (RandomCrop(), RandomFlip(), PCAColor())
    mean: Literal["crop", "center", "channel"] = "crop"

    def __post_init__(self) -> None:
        names = [type(transform).__name__ for transform in self.transforms]
        if len(set(names)) < len(names):
            raise UserError(f"the transforms {', '.join(names)} have equal names, and would draw equal numbers: keep one of each")

    @property
    def shifts_colors(self) -> bool:
        """Whether a transform may shift colors, as all but `RandomCrop` and `RandomFlip` may."""
        return not all(type(transform) in (RandomCrop, RandomFlip) for transform in self.transforms)

    @property
    def color_divisor(self) -> float:
        """Divisor of images with a color shift: that of `PCAColor`, or 1."""
        return next((transform.divisor for transform in self.transforms if isinstance(transform, PCAColor)), 1.0)

    def without(self, *names: str) -> "Augmentation":
        """Return a copy without the transforms of the given names.

        Raises:
          UserError: if there is no transform of one of the names.
        """
        transforms = {type(transform).__name__: transform for transform in self.transforms}
        if missing := [name for name in names if name not in transforms]:
            raise UserError(f"the augmentation has no transform {missing[0]}: choose from {', '.join(transforms) or 'none'}")
        return replace(self, transforms=tuple(transform for name, transform in transforms.items() if name not in names))

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON, for `from_json`."""
        return {**vars(self), "transforms": [transform.to_json() for transform in self.transforms]}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Augmentation":
        """Create an augmentation from the return value of `to_json`.

        Raises:
          UserError: if no imported module defines one of the transforms.
        """
        return cls(**{**record, "transforms": tuple(map(Transform.from_json, record["transforms"]))})


SOURCE_AUGMENTATION = Augmentation(
    transforms=(
        RandomCrop(last_position=True, images_per_crop=32),
        RandomFlip(images_per_flip=32),
        PCAColor("deviation", divisor=1.1),
    ),
    mean="center",
)
"""Augmentation of the original code, for images of 256 pixels."""


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
