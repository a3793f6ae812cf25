"""SIFT and Fisher vectors, the method [24] of Table 1 and [7] of Table 2 (Sánchez and Perronnin 2011).

    make baselines DATA=caltech101 ARGS="--images 30"    # with the packages of the extra baselines, and sparse_coding.py
    python experiments/baselines/fisher_vectors.py --data caltech101 --images 30
    python experiments/baselines/fisher_vectors.py --data path/to/caltech101.tar --images 30 --whole

Dense SIFT descriptors at four scales are projected on their principal components. The improved Fisher vector of a region is the
gradient of the log likelihood of its descriptors under a Gaussian mixture, with signed square roots, divided by its norm
(Perronnin, Sánchez and Mensink 2010). The regions are the whole image, its quarters, and three horizontal strips. Linear
support vector machines are trained one class against the rest; their penalty C is chosen on held-out training images.

Published for Caltech-101 with 30 training images per class, whole images, 256 Gaussians and a finer grid: a mean accuracy of
77.8% (Chatfield, Lempitsky, Vedaldi and Zisserman 2011, "The devil is in the details"). This figure has not been checked against
the paper.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tyro
from dense_sift import Descriptors, dense_sift, sample_descriptors
from evaluate_features import main
from jaxtyping import Float32, Float64, UInt8
from skimage.feature import fisher_vector  # type: ignore[reportMissingImports]
from sklearn.decomposition import PCA  # type: ignore[reportMissingImports]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[reportMissingImports]
from sklearn.mixture import GaussianMixture  # type: ignore[reportMissingImports]
from study import Study

from alexnet_jax.cli.exit import exit_on_error

CELLS = (6, 2)
"""Rows and columns of the grid of cells of which all regions consist."""
REGIONS = (
    (slice(0, 6), slice(0, 2)),
    *((slice(row, row + 3), slice(column, column + 1)) for row in (0, 3) for column in (0, 1)),
    *((slice(row, row + 2), slice(0, 2)) for row in (0, 2, 4)),
)
"""Rows and columns of the cells of each region: the image, its quarters, and three strips."""


class Vocabulary(NamedTuple):
    """Principal components of descriptors, and the Gaussian mixture of their projections."""

    pca: PCA
    mixture: GaussianMixture


@dataclass(frozen=True)
class FisherVectors:
    """SIFT and Fisher vectors.

    Attributes:
      study: data and splits.
      step: distance of the descriptors, in pixels.
      bin_sizes: sides of a spatial bin of SIFT at each scale, in pixels; a patch has four times that side.
      components: number of principal components.
      gaussians: number of Gaussians.
      samples: number of descriptors from which components and Gaussians are learned.
      iterations: maximum number of iterations of expectation maximization.
    """

    study: tyro.conf.OmitArgPrefixes[Study]
    step: int = 6
    bin_sizes: tuple[int, ...] = (4, 6, 8, 10)
    components: int = 64
    gaussians: int = 128
    samples: int = 150_000
    iterations: int = 30

    name = "fisher_vectors"

    def learn(self, images: Iterator[UInt8[np.ndarray, "height width"]]) -> Vocabulary:
        """Learn components and Gaussians from descriptors of gray images."""
        samples = sample_descriptors((self._descriptors(gray) for gray in images), self.samples)
        pca = PCA(self.components, random_state=0).fit(samples)
        mixture = GaussianMixture(self.gaussians, covariance_type="diag", max_iter=self.iterations, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the mixture need not be at its optimum
            return Vocabulary(pca, mixture.fit(pca.transform(samples).astype(np.float64)))

    def encode(self, gray: UInt8[np.ndarray, "height width"], vocabulary: Vocabulary) -> Float32[np.ndarray, " features"]:
        """Return the improved Fisher vectors of all regions of an image, of norm 1 together."""
        descriptors = self._descriptors(gray)
        projected = vocabulary.pca.transform(descriptors.values).astype(np.float64)
        cell = np.minimum((descriptors.positions * CELLS).astype(int), np.array(CELLS) - 1)
        vectors, counts = [], np.zeros(CELLS, int)
        for row, column in np.ndindex(CELLS):
            inside = projected[(cell == (row, column)).all(axis=1)]
            counts[row, column] = len(inside)
            vectors.append(fisher_vector(inside, vocabulary.mixture) if len(inside) else np.zeros(self.dimensions))
        # A Fisher vector is a mean over descriptors, so that of a region is the weighted mean of those of its cells.
        sums = np.stack(vectors).reshape(*CELLS, -1) * counts[..., None]
        means = [sums[region].sum((0, 1)) / max(1, counts[region].sum()) for region in REGIONS]
        return (np.concatenate([improved(mean) for mean in means]) / np.sqrt(len(REGIONS))).astype(np.float32)

    @property
    def dimensions(self) -> int:
        """Dimensions of the Fisher vector of a region: the gradients by weights, means and variances."""
        return self.gaussians * (1 + 2 * self.components)

    def _descriptors(self, gray: UInt8[np.ndarray, "height width"]) -> Descriptors:
        return dense_sift(gray, self.step, self.bin_sizes)


def improved(vector: Float64[np.ndarray, " features"]) -> Float64[np.ndarray, " features"]:
    """Return the signed square roots of a Fisher vector, divided by their norm."""
    roots = np.sign(vector) * np.sqrt(np.abs(vector))
    return roots / max(float(np.linalg.norm(roots)), np.finfo(np.float64).tiny)


if __name__ == "__main__":
    with exit_on_error():
        main(FisherVectors)
