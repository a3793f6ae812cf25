"""Mean image and principal components of the colors of a training set, computed in one pass (paper, sections 2 and 4.1)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8

from alexnet_jax.errors import UserError


@dataclass(frozen=True)
class ColorComponents:
    """Principal components of RGB pixel values on the scale 0 to 255.

    Attributes:
      deviations: standard deviation along each component, in gray levels, ascending: square roots of the eigenvalues of the
        covariance matrix.
      directions: unit eigenvectors, one per column.
    """

    deviations: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "3 3"]


@dataclass
class PixelStatistics:
    """Pixel sums of images of one size, from which the mean image and the color covariance are computed.

    Sums are exact integers (int64 holds two billion images), so the result does not depend on the order of the images or on
    how they are divided among shards.

    Attributes:
      size: side of the images, in pixels.
      num_images: number of images added.
      total: sum of each pixel and channel over the images.
      products: sum of the products of each pair of channels over all pixels of the images.
    """

    size: int
    num_images: int = 0
    total: Int64[np.ndarray, "size size 3"] = field(init=False)
    products: Int64[np.ndarray, "3 3"] = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.size, self.size, 3), np.int64)
        self.products = np.zeros((3, 3), np.int64)

    def add(self, image: UInt8[np.ndarray, "height width 3"], products: Int64[np.ndarray, "3 3"] | None = None) -> None:
        """Add an image; `products` are its `color_products` if they are already computed."""
        self.num_images += 1
        self.total += image
        self.products += color_products(image) if products is None else products

    def merge(self, other: "PixelStatistics") -> None:
        """Add the sums of other images of the same size."""
        self.num_images += other.num_images
        self.total += other.total
        self.products += other.products

    @property
    def mean_image(self) -> Float[np.ndarray, "size size 3"]:
        """Mean of each pixel and channel, 0 to 255, float32."""
        return (self.total / self.num_images).astype(np.float32)

    def color_components(self) -> ColorComponents:
        """Return the principal components of the RGB values of all pixels (paper, section 4.1)."""
        pixels = self.num_images * self.size**2
        mean = self.total.sum(axis=(0, 1)) / pixels
        eigenvalues, directions = np.linalg.eigh(self.products / pixels - np.outer(mean, mean))
        return ColorComponents(np.sqrt(np.maximum(eigenvalues, 0)), directions)


def color_products(image: UInt8[np.ndarray, "height width 3"]) -> Int64[np.ndarray, "3 3"]:
    """Return the sum over pixels of the outer product of each pixel's RGB values."""
    channels = image.reshape(-1, 3).T.astype(np.float64, order="C")  # exact for integers below 2^53
    return np.einsum("ip,jp->ij", channels, channels).astype(np.int64)  # unlike @, einsum releases the GIL


def check_mean_image(mean: np.ndarray, size: int, source: str | Path, advice: str) -> None:
    """Check that an array is a mean image.

    Args:
      mean: array to check.
      size: expected side, in pixels.
      source: file of the array, for the error message.
      advice: end of the error message: what to do.

    Raises:
      UserError: if it is not float32 [size, size, 3] with values from 0 to 255.
    """
    if mean.dtype != np.float32 or mean.shape != (size, size, 3):
        problem = f"is {mean.dtype} of shape {mean.shape}, expected float32 of shape {(size, size, 3)}"
    elif not np.isfinite(mean).all() or mean.min() < 0 or mean.max() > 255:
        problem = "has values that are not from 0 to 255"
    else:
        return
    raise UserError(f"the mean image of {source} {problem}: {advice}")
