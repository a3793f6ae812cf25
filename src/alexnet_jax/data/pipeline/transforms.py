"""Random transforms of the augmentation (paper, section 4.1), and the base class for others.

A transform acts on the parameters of a batch, not on its pixels: it chooses which crop of each image is copied, whether the copy
is flipped, and which color shift the training step adds. So every pixel is copied once, however many transforms there are.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from alexnet_jax.class_registry import ClassRegistry
from alexnet_jax.data.statistics import ColorComponents
from alexnet_jax.errors import UserError, check_number

ColorScale = Literal["variance", "deviation"]
"""Scale of the color shift along a principal component: "variance", an eigenvalue of the color covariance, as in the paper's
text, or "deviation", its square root, as in the original code."""


class BatchParams(NamedTuple):
    """Images of a batch, and how each of them is cropped, flipped and shifted in color.

    Attributes:
      indices: indices of the images in the training split.
      position: row and column of the upper left corner of the crop, pixels, from 0 to `border`.
      flipped: whether the crop is flipped horizontally.
      color_shift: shift to add to red, green and blue, in gray levels.
      border: side of the image minus side of the crop, pixels.
      colors: principal components of the training set's colors.
    """

    indices: Int[np.ndarray, " batch"]
    position: Int[np.ndarray, "batch 2"]
    flipped: Bool[np.ndarray, " batch"]
    color_shift: Float[np.ndarray, "batch 3"]
    border: int
    colors: ColorComponents

    @classmethod
    def center_crops(cls, indices: Int[np.ndarray, " batch"], border: int, colors: ColorComponents) -> "BatchParams":
        """Return the parameters of center crops that are neither flipped nor shifted in color."""
        size = len(indices)
        position = np.full((size, 2), border // 2, np.int32)
        return cls(indices, position, np.zeros(size, bool), np.zeros((size, 3), np.float32), border, colors)


class Transform:
    """Random transform of the parameters of a batch: a `grain.transforms.RandomMap`, without its import.

    A subclass is a frozen dataclass whose fields can be stored as JSON. It is recorded in a run's config.json under the name of
    its class, which must not be that of another transform.

    Attributes:
      registry: subclasses by name.

    Examples:
      >>> @dataclass(frozen=True)
      ... class RandomBrightness(Transform):
      ...     std: float = 10.0  # gray levels
      ...
      ...     def random_map(self, element, rng):
      ...         shift = rng.normal(0, self.std, (len(element.indices), 1)).astype("float32")
      ...         return element._replace(color_shift=element.color_shift + shift)
      >>> RandomBrightness(20.0).to_json()
      {'transform': 'RandomBrightness', 'std': 20.0}
    """

    registry: ClassVar["ClassRegistry[Transform]"] = ClassRegistry("transform")

    def __init_subclass__(cls) -> None:
        Transform.registry.add(cls.__name__, cls)

    def random_map(self, element: BatchParams, rng: np.random.Generator) -> BatchParams:
        """Return the transformed parameters.

        Args:
          element: parameters of the global batch, over all processes; arrays must be replaced, not modified.
          rng: random numbers, a function of the seed of the training run, the name of the class and the step.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return the name of the class and all fields as JSON, for `from_json`."""
        fields: dict[str, Any] = asdict(self)  # pyright: ignore[reportArgumentType] (subclasses are dataclasses)
        return {"transform": type(self).__name__, **fields}

    @staticmethod
    def from_json(record: dict[str, Any]) -> "Transform":
        """Create a transform from the return value of `to_json`.

        Raises:
          UserError: if no imported module defines the transform, or it does not have these fields.
        """
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        name = fields.pop("transform")
        transform = Transform.registry.find(name)
        try:
            return transform(**fields)
        except TypeError as error:
            raise UserError(f"the transform {name} has different fields ({error}): use the version that saved it") from error


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Crop at a random position. Without it, crops are taken at the center.

    Attributes:
      last_position: whether crops may touch the bottom and right edges. This gives 33 x 33 positions, as in the original code,
        instead of the 32 x 32 that follow from the paper's factor of 2048.
      images_per_crop: number of consecutive images of a batch that share one position; 32 in the original code.
    """

    last_position: bool = False
    images_per_crop: int = 1

    def __post_init__(self) -> None:
        check_number("images_per_crop of RandomCrop", self.images_per_crop, at_least=1)

    def random_map(self, element: BatchParams, rng: np.random.Generator) -> BatchParams:
        """Return the parameters with random positions."""
        positions = max(element.border + self.last_position, 1)  # without a border, there is one position
        position = rng.integers(0, positions, size=element.position.shape, dtype=np.int32)
        return element._replace(position=position[np.arange(len(position)) // self.images_per_crop])


@dataclass(frozen=True)
class RandomFlip(Transform):
    """Flip crops horizontally with probability 1/2.

    Attributes:
      images_per_flip: number of consecutive images of a batch that are flipped together; 32 in the original code.
    """

    images_per_flip: int = 1

    def __post_init__(self) -> None:
        check_number("images_per_flip of RandomFlip", self.images_per_flip, at_least=1)

    def random_map(self, element: BatchParams, rng: np.random.Generator) -> BatchParams:
        """Return the parameters with random flips."""
        flipped = rng.integers(0, 2, size=len(element.flipped)).astype(bool)
        return element._replace(flipped=element.flipped ^ flipped[np.arange(len(flipped)) // self.images_per_flip])


@dataclass(frozen=True)
class PCAColor(Transform):
    """Add a random shift along the principal components of the training set's colors.

    Attributes:
      scale: scale of the shift along each component. "variance": eigenvalues of the covariance of pixels in [0, 1], as in the
        paper's text. "deviation": their square roots, as in the original code.
      std: standard deviation of the normal variables by which the scale is multiplied; 0.1 in the paper.
      divisor: divisor of images with a color shift, which compensates for their larger variance; 1.1 in the original code.
    """

    scale: ColorScale = "variance"
    std: float = 0.1
    divisor: float = 1.0

    def __post_init__(self) -> None:
        check_number("std of PCAColor", self.std, at_least=0)
        check_number("divisor of PCAColor", self.divisor, above=0)

    def random_map(self, element: BatchParams, rng: np.random.Generator) -> BatchParams:
        """Return the parameters with random color shifts added."""
        normals = rng.normal(0.0, self.std, size=(len(element.indices), 3))
        return element._replace(color_shift=element.color_shift + color_shift(normals, element.colors, self.scale))


def color_shift(
    normals: Float[np.ndarray, "batch 3"], colors: ColorComponents, scale: ColorScale
) -> Float[np.ndarray, "batch 3"]:
    """Return shifts of red, green and blue, `directions @ (normals * scale)`, in gray levels (paper, section 4.1).

    The paper multiplies the normal variables by eigenvalues. These are variances, so the shift depends on the range of pixel
    values, which is assumed to be [0, 1]; for [0, 255] the shift would be 255 times as large. The original code multiplies by
    standard deviations, for which the range does not matter; on ImageNet its shifts are about twice as large.

    Args:
      normals: normal variables with standard deviation `PCAColor.std`, one per image and principal component.
      colors: principal components of the training set's colors.
      scale: scale of the shift along each component.
    """
    scales = colors.deviations if scale == "deviation" else 255 * (colors.deviations / 255) ** 2
    return ((normals * scales) @ colors.directions.T).astype(np.float32)
