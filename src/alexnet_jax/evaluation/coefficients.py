"""The coefficients of an ensemble's mean, searched on images whose classes are known, as in the original code (avg-valid.py)."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from alexnet_jax.evaluation.ensemble import ModelPredictions
from alexnet_jax.evaluation.metrics import BEST

GRID = np.arange(21) / 20
"""What a coefficient may be, before all are divided by their sum."""

PASSES = 5
"""Times that all coefficients are gone through, at most."""


class CachedPredictions:
    """All it takes to count the errors of any weighted mean: classes that a network does not hold for less probable than the true
    one. They are few, so that no probabilities of whole splits are kept.

    Args:
      opinions: of all images.
    """

    def __init__(self, opinions: Iterable[ModelPredictions]):
        parts = []
        self.images = 0
        for labels, probabilities in opinions:
            parts.append(_rivals(labels, probabilities, self.images))
            self.images += len(labels)
            self._classes = probabilities.shape[2]
        # Of each rival: the image it is a rival in, by how much each network prefers it, and whether it wins a draw.
        self._image, self._margins, self._first = (np.concatenate(part) for part in zip(*parts, strict=True))

    @property
    def networks(self) -> int:
        """How many networks there are to weigh."""
        return self._margins.shape[1]

    def errors(self, coefficients: Float[np.ndarray, " networks"]) -> int:
        """Images with a top-5 error under these coefficients, which need no particular sum; top-1, if five classes are all."""
        margins = self._margins @ coefficients.astype(np.float32)
        before = np.bincount(self._image[(margins > 0) | ((margins == 0) & self._first)], minlength=self.images)
        return int((before >= (BEST if self._classes > BEST else 1)).sum())


def _rivals(
    labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "networks images classes"], start: int
) -> tuple[Int[np.ndarray, " rivals"], Float[np.ndarray, "rivals networks"], Bool[np.ndarray, " rivals"]]:
    margins = probabilities - np.take_along_axis(probabilities, labels[None, :, None], axis=2)
    others = np.arange(probabilities.shape[2]) != labels[:, None]
    image, rival = np.nonzero((margins >= 0).any(axis=0) & others)
    return image + start, margins[:, image, rival].T, rival < labels[image]


def search(rivals: CachedPredictions) -> Float[np.ndarray, " networks"]:
    """Coefficients with no more errors than the plain mean has on these images, and a sum of 1.

    One after the other takes each value of the grid and keeps what has the fewest errors, until a pass changes nothing.
    """
    coefficients = np.full(rivals.networks, 0.5)
    fewest = rivals.errors(coefficients)
    for _ in range(PASSES):
        before = coefficients
        for network in range(rivals.networks):
            for value in GRID:
                tried = np.where(np.arange(rivals.networks) == network, value, coefficients)
                if tried.any() and (errors := rivals.errors(tried)) < fewest:
                    coefficients, fewest = tried, errors
        if coefficients is before:
            break
    return coefficients / coefficients.sum()
