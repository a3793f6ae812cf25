"""Mean image and principal components of the colors of a training set, in one pass (paper, sections 2 and 4.1)."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64, UInt8


@dataclass(frozen=True)
class ColorComponents:
    """Principal components of RGB pixel values on the scale 0 to 255.

    Attributes:
      deviations: standard deviation along each component, gray levels, ascending: roots of the covariance's eigenvalues.
      directions: unit vectors, one a column.
    """

    deviations: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "3 3"]


@dataclass
class PixelStatistics:
    """Sums over images of one size, from which means and covariance follow.

    Sums of bytes and of their products are whole numbers, kept as such (two billion images fit): no rounding, so the result
    does not depend on the order in which images came, nor on how they were divided.
    """

    size: int
    images: int = 0
    total: Int64[np.ndarray, "size size 3"] = field(init=False)
    products: Int64[np.ndarray, "3 3"] = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.size, self.size, 3), np.int64)
        self.products = np.zeros((3, 3), np.int64)

    def add(self, image: UInt8[np.ndarray, "height width 3"], products: Int64[np.ndarray, "3 3"] | None = None) -> None:
        """Adds an image; `products` are its `color_products`, where another thread has made them."""
        self.images += 1
        self.total += image
        self.products += color_products(image) if products is None else products

    def merge(self, other: "PixelStatistics") -> None:
        """Adds the sums of `other`, of images of the same size."""
        self.images += other.images
        self.total += other.total
        self.products += other.products

    @property
    def mean_image(self) -> Float[np.ndarray, "size size 3"]:
        """Mean of each pixel, 0 to 255."""
        return (self.total / self.images).astype(np.float32)

    def color_components(self) -> ColorComponents:
        """Principal components of the RGB values of all pixels (paper, section 4.1), deviations in gray levels."""
        pixels = self.images * self.size**2
        mean = self.total.sum(axis=(0, 1)) / pixels
        eigenvalues, directions = np.linalg.eigh(self.products / pixels - np.outer(mean, mean))
        return ColorComponents(np.sqrt(np.maximum(eigenvalues, 0)), directions)


def color_products(image: UInt8[np.ndarray, "height width 3"]) -> Int64[np.ndarray, "3 3"]:
    """Sums over the pixels of red times red, red times green and so on."""
    channels = image.reshape(-1, 3).T.astype(np.float64, order="C")  # whole numbers below 2^53 are exact
    return np.einsum("ip,jp->ij", channels, channels).astype(np.int64)  # unlike @, it leaves the interpreter to others
