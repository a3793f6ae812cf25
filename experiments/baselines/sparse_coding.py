"""Sparse codes of SIFT with max pooling over a spatial pyramid, as the method [2] of Table 1 (Lin et al. 2010; Yang et al. 2009).

    make baselines DATA=caltech101 ARGS="--images 30"    # with the packages of the extra baselines, after fisher_vectors.py
    python experiments/baselines/sparse_coding.py --data caltech101 --images 30
    python experiments/baselines/sparse_coding.py --data path/to/caltech101.tar --images 30 --whole

The codes are those of locality-constrained linear coding (LLC; Wang et al. 2010), in the fast form of the authors: a descriptor
is reconstructed from the nearest words of a dictionary, with coefficients that sum to 1. The dictionary is found by k-means. The
largest coefficients of each word in the cells of a spatial pyramid are the features of an image, on which linear support vector
machines are trained, one class against the rest; their penalty C is chosen on held-out training images.

The entry of Lin et al. in ILSVRC-2010 was larger: it combined several classifiers, with HOG and local binary patterns as
descriptors, and with local coordinate coding and super-vector coding.

Published for Caltech-101 with 30 training images per class and whole images: mean accuracies of 73.2% for sparse coding with
1,024 words (Yang, Yu, Gong and Huang 2009) and 73.4% for LLC with 2,048 words (Wang et al. 2010). These two figures have not been
checked against the papers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tyro
from dense_sift import dense_sift, sample_descriptors
from evaluate_features import main
from jaxtyping import Float32, Int, UInt8
from sklearn.cluster import MiniBatchKMeans  # type: ignore[reportMissingImports]
from study import Study

from alexnet_jax.cli.exit import exit_on_error

PYRAMID = (4, 2, 1)
"""Cells along each side of the image at each level of the pyramid; each level pools the one before it."""


class Codes(NamedTuple):
    """Sparse codes of descriptors: words of the dictionary and their coefficients."""

    words: Int[np.ndarray, "descriptors neighbors"]
    coefficients: Float32[np.ndarray, "descriptors neighbors"]


@dataclass(frozen=True)
class SparseCoding:
    """Locality-constrained linear coding of SIFT.

    Attributes:
      study: data and splits.
      step: distance of the descriptors, in pixels.
      bin_sizes: sides of a spatial bin of SIFT at each scale, in pixels; a patch has four times that side.
      words: number of words of the dictionary.
      neighbors: number of nearest words from which a descriptor is reconstructed.
      regularization: constant that is added to the diagonal of the words' covariance, as a fraction of its trace.
      samples: number of descriptors from which the dictionary is learned.
    """

    study: tyro.conf.OmitArgPrefixes[Study]
    step: int = 8
    bin_sizes: tuple[int, ...] = (4, 6, 8)
    words: int = 1024
    neighbors: int = 5
    regularization: float = 1e-4
    samples: int = 150_000

    name = "sparse_coding"

    def learn(self, images: Iterator[UInt8[np.ndarray, "height width"]]) -> Float32[np.ndarray, "words 128"]:
        """Return a dictionary for the descriptors of gray images."""
        samples = sample_descriptors((dense_sift(gray, self.step, self.bin_sizes) for gray in images), self.samples)
        clusters = MiniBatchKMeans(self.words, batch_size=4096, n_init="auto", max_iter=50, random_state=0)
        return np.asarray(clusters.fit(samples).cluster_centers_, np.float32)

    def encode(
        self, gray: UInt8[np.ndarray, "height width"], vocabulary: Float32[np.ndarray, "words 128"]
    ) -> Float32[np.ndarray, " features"]:
        """Return the largest coefficients of each word in the cells of the pyramid, of norm 1 together."""
        descriptors = dense_sift(gray, self.step, self.bin_sizes)
        codes = llc(descriptors.values, vocabulary, self.neighbors, self.regularization)
        return pool(codes, descriptors.positions, self.words)


def llc(
    descriptors: Float32[np.ndarray, "descriptors 128"],
    dictionary: Float32[np.ndarray, "words 128"],
    neighbors: int,
    regularization: float,
) -> Codes:
    """Reconstruct each descriptor x from its nearest words b_i: minimize |x - Σ c_i b_i|² with Σ c_i = 1.

    This is equation 7 of Wang et al. 2010.

    Args:
      descriptors: descriptors.
      dictionary: words.
      neighbors: number of words per descriptor.
      regularization: see `SparseCoding`.
    """
    distances = (dictionary**2).sum(axis=1) - 2 * descriptors @ dictionary.T  # squared, up to a constant per descriptor
    words = np.argpartition(distances, neighbors - 1, axis=1)[:, :neighbors]
    differences = dictionary[words] - descriptors[:, None]
    covariances = differences @ differences.transpose(0, 2, 1)
    traces = np.trace(covariances, axis1=1, axis2=2)[:, None, None]
    # A trace of zero is that of a descriptor that equals its words.
    covariances += (regularization * traces + np.finfo(np.float32).tiny ** 0.5) * np.eye(neighbors, dtype=np.float32)
    coefficients = np.linalg.solve(covariances, np.ones((len(words), neighbors, 1), np.float32))[..., 0]
    return Codes(words, coefficients / coefficients.sum(axis=1, keepdims=True))


def pool(codes: Codes, positions: Float32[np.ndarray, "descriptors 2"], words: int) -> Float32[np.ndarray, " features"]:
    """Return the largest coefficient of each word in each cell of the pyramid, divided by the norm of all of them.

    Args:
      codes: sparse codes of an image's descriptors; the coefficients of all other words are zero.
      positions: positions of the descriptors, as fractions of height and width.
      words: number of words of the dictionary.
    """
    side = PYRAMID[0]
    row, column = np.minimum((positions * side).astype(int), side - 1).T
    cells = np.zeros((side, side, words), np.float32)
    np.maximum.at(cells, (row[:, None], column[:, None], codes.words), codes.coefficients)
    levels = [cells]
    for side in PYRAMID[1:]:
        levels.append(levels[-1].reshape(side, levels[-1].shape[0] // side, side, -1, words).max(axis=(1, 3)))
    features = np.concatenate([level.ravel() for level in levels])
    return features / max(float(np.linalg.norm(features)), np.finfo(np.float32).tiny)


if __name__ == "__main__":
    with exit_on_error():
        main(SparseCoding)
