"""Search for the coefficients of a weighted mean of predictions on labeled images, as in the original code (avg-valid.py)."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from alexnet_jax.evaluation.ensemble import ModelPredictions
from alexnet_jax.evaluation.metrics import TOP_K

GRID = np.arange(21) / 20
"""Values tried for each coefficient, before normalization."""

MAX_PASSES = 5
"""Maximum number of passes over all coefficients."""


class CachedPredictions:
    """Compact cache of predictions, from which the errors of any weighted mean can be counted.

    For each image, the cache holds only the classes to which some model assigns at least the probability of the true class: no
    other class can rank above the true one in a weighted mean. This needs much less memory than all probabilities of a split.

    Args:
      predictions: batches of predictions, which together cover all images.
    """

    def __init__(self, predictions: Iterable[ModelPredictions]):
        parts = []
        self.num_images = 0
        for labels, probabilities in predictions:
            parts.append(_competing_classes(labels, probabilities, self.num_images))
            self.num_images += len(labels)
            self._num_classes = probabilities.shape[2]
        # For each competing class: its image, its margin over the true class by model, and whether it ranks first in a tie.
        self._image, self._margins, self._wins_tie = (np.concatenate(part) for part in zip(*parts, strict=True))

    @property
    def num_models(self) -> int:
        """Number of models whose predictions are averaged."""
        return self._margins.shape[1]

    def count_errors(self, coefficients: Float[np.ndarray, " models"]) -> int:
        """Count the top-5 errors of a weighted mean, or its top-1 errors if there are at most five classes.

        Args:
          coefficients: weight of each model; they need not sum to 1.
        """
        margins = self._margins @ coefficients.astype(np.float32)
        rank = np.bincount(self._image[(margins > 0) | ((margins == 0) & self._wins_tie)], minlength=self.num_images)
        return int((rank >= (TOP_K if self._num_classes > TOP_K else 1)).sum())


def _competing_classes(
    labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "models images classes"], first_image: int
) -> tuple[Int[np.ndarray, " competing"], Float[np.ndarray, "competing models"], Bool[np.ndarray, " competing"]]:
    margins = probabilities - np.take_along_axis(probabilities, labels[None, :, None], axis=2)
    others = np.arange(probabilities.shape[2]) != labels[:, None]
    image, label = np.nonzero((margins >= 0).any(axis=0) & others)
    return image + first_image, margins[:, image, label].T, label < labels[image]


def search_coefficients(predictions: CachedPredictions) -> Float[np.ndarray, " models"]:
    """Search for the coefficients with the fewest errors by coordinate descent over a grid.

    The search starts from equal coefficients. Each coefficient in turn is set to the value of `GRID` with the fewest errors,
    until a pass over all of them changes nothing, or for `MAX_PASSES` passes.

    Returns:
      Coefficients that sum to 1. On these images they have at most as many errors as the plain mean.
    """
    coefficients = np.full(predictions.num_models, 0.5)
    fewest = predictions.count_errors(coefficients)
    for _ in range(MAX_PASSES):
        before = coefficients
        for model in range(predictions.num_models):
            for value in GRID:
                candidate = np.where(np.arange(predictions.num_models) == model, value, coefficients)
                if candidate.any() and (errors := predictions.count_errors(candidate)) < fewest:
                    coefficients, fewest = candidate, errors
        if coefficients is before:
            break
    return coefficients / coefficients.sum()
