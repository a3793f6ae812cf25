"""Errors of probabilities of classes, in all and class by class."""

import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.training.validation import EvalMetrics

BEST = 5
"""Most probable classes that the true one has to be among (paper, section 2)."""

_SMALLEST = np.finfo(np.float32).tiny
"""Probabilities below count as this one in the loss, which stays a number: 87 nats."""


def ranks(labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "images classes"]) -> Int[np.ndarray, " images"]:
    """How many classes come before the true one; of equally probable classes the first in the list does, as in `lax.top_k`.

    Examples:
      >>> ranks(np.array([2, 1]), np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]))
      array([2, 1])
    """
    of_true = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > of_true) | ((probabilities == of_true) & earlier)).sum(axis=1)


def top_classes(probabilities: Float[np.ndarray, "images classes"]) -> Int[np.ndarray, "images best"]:
    """The five most probable classes, or all if there are fewer, the most probable first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]


class ErrorCounter:
    """Counts errors, image by image.

    Attributes:
      images: of each class.
      top1_errors: of each class, images for which another one is more probable.
      top5_errors: of each class, images for which five others are.
    """

    def __init__(self, num_classes: int):
        self.images, self.top1_errors, self.top5_errors = (np.zeros(num_classes, np.int64) for _ in range(3))
        self._loss = 0.0

    def add(self, labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "images classes"]) -> None:
        """Counts a batch; `probabilities` sum to 1 over the classes."""
        rank, num_classes = ranks(labels, probabilities), len(self.images)
        self.images += np.bincount(labels, minlength=num_classes)
        self.top1_errors += np.bincount(labels[rank >= 1], minlength=num_classes)
        self.top5_errors += np.bincount(labels[rank >= BEST], minlength=num_classes)
        of_true = np.take_along_axis(probabilities, labels[:, None], axis=1)
        self._loss -= float(np.log(np.maximum(of_true, _SMALLEST), dtype=np.float64).sum())

    @property
    def errors(self) -> EvalMetrics:
        """Of all images together."""
        images = int(self.images.sum())
        return EvalMetrics(self.top1_errors.sum() / images, self.top5_errors.sum() / images, self._loss / images, images)

    @property
    def of_classes(self) -> list[float | None]:
        """Top-1 error of each class; None where it has no images."""
        counts = zip(self.top1_errors.tolist(), self.images.tolist(), strict=True)
        return [errors / images if images else None for errors, images in counts]

    @property
    def mean_of_classes(self) -> float:
        """Mean of the top-1 errors of the classes that have images: always the most frequent class does badly in it."""
        return float(np.mean([error for error in self.of_classes if error is not None]))
