"""Mean image and principal components of the colours of a training set, in one pass (paper, sections 2 and 4.1)."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64

from alexnet_jax.data.images import Pixels


@dataclass(frozen=True)
class ColorComponents:
    """Principal components of RGB pixel values on the scale 0 to 255.

    Attributes:
      deviations: standard deviation along each component, grey levels, ascending: roots of the covariance's eigenvalues.
      directions: unit vectors, one a column.
    """

    deviations: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "3 3"]


@dataclass
class PixelStatistics:
    """Sums over images of one size, from which means and covariance follow; float64, so that a million images add up."""

    size: int
    images: int = 0
    total: Float64[np.ndarray, "size size 3"] = field(init=False)
    products: Float64[np.ndarray, "3 3"] = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.size, self.size, 3))
        self.products = np.zeros((3, 3))

    def add(self, image: Pixels) -> None:
        pixels = image.astype(np.float64)
        self.images += 1
        self.total += pixels
        flat = pixels.reshape(-1, 3)
        self.products += flat.T @ flat

    @property
    def mean_image(self) -> Float[np.ndarray, "size size 3"]:
        """Mean of each pixel, 0 to 255."""
        return (self.total / self.images).astype(np.float32)

    def color_components(self) -> ColorComponents:
        pixels = self.images * self.size**2
        mean = self.total.sum(axis=(0, 1)) / pixels
        eigenvalues, directions = np.linalg.eigh(self.products / pixels - np.outer(mean, mean))
        return ColorComponents(np.sqrt(np.maximum(eigenvalues, 0)), directions)
