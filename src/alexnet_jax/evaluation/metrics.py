"""Top-1 and top-5 errors and loss of predicted class probabilities, over all images and per class."""

import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.training.confusion import Confusions
from alexnet_jax.training.metrics import EvalMetrics

TOP_K = 5
"""Number of classes in a top-5 prediction, which is an error if they do not include the true class (paper, section 2)."""

_MIN_PROBABILITY = np.finfo(np.float32).tiny
"""Lower bound of probabilities in the loss, which keeps it finite: at most 87 nats per image."""


def label_ranks(
    labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "images classes"]
) -> Int[np.ndarray, " images"]:
    """Return the rank of each image's label, 0 for the most probable class. Ties are ordered by label, as in `lax.top_k`.

    Examples:
      >>> label_ranks(np.array([2, 1]), np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]))
      array([2, 1])
    """
    label_probability = np.take_along_axis(probabilities, labels[:, None], axis=1)
    lower_label = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > label_probability) | ((probabilities == label_probability) & lower_label)).sum(axis=1)


def top_classes(probabilities: Float[np.ndarray, "images classes"], count: int = TOP_K) -> Int[np.ndarray, "images k"]:
    """Return the labels of each image's most probable classes, most probable first. Ties are ordered by label, as in `lax.top_k`.

    Args:
      probabilities: predicted probabilities.
      count: number of labels per image; all are returned if there are fewer classes.
    """
    descending = -probabilities
    if count < probabilities.shape[1]:
        labels = _smallest(descending, count)
        descending = np.take_along_axis(descending, labels, axis=1)
        return np.take_along_axis(labels, np.argsort(descending, axis=1, kind="stable"), axis=1)
    return np.argsort(descending, axis=1, kind="stable")


def _smallest(values: Float[np.ndarray, "rows columns"], count: int) -> Int[np.ndarray, "rows count"]:
    """Return the columns of each row's smallest values in ascending order; of equal values, those in the first columns.

    Args:
      values: values; NaN is larger than all others.
      count: number of columns to return, less than the number of columns.
    """
    values = np.where(np.isnan(values), np.inf, values)
    largest = np.partition(values, count - 1, axis=1)[:, count - 1 : count]
    smaller, equal = values < largest, values == largest
    first_equal = equal & (np.cumsum(equal, axis=1) <= count - smaller.sum(axis=1, keepdims=True))
    return np.nonzero(smaller | first_equal)[1].reshape(len(values), count)


class ErrorCounter:
    """Accumulator of errors and loss over batches.

    Attributes:
      images: number of images per class.
      top1_errors: number of top-1 errors per class.
      top5_errors: number of top-5 errors per class.
      confusions: numbers of images by true and most probable class.
    """

    def __init__(self, num_classes: int):
        self.images, self.top1_errors, self.top5_errors = (np.zeros(num_classes, np.int64) for _ in range(3))
        self.confusions = Confusions(num_classes)
        self._loss = 0.0

    def add(self, labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "images classes"]) -> None:
        """Add a batch of true classes and of predicted probabilities, which sum to 1 over the classes."""
        rank, num_classes = label_ranks(labels, probabilities), len(self.images)
        self.images += np.bincount(labels, minlength=num_classes)
        self.top1_errors += np.bincount(labels[rank >= 1], minlength=num_classes)
        self.top5_errors += np.bincount(labels[rank >= TOP_K], minlength=num_classes)
        self.confusions.add(labels, probabilities.argmax(axis=1))
        label_probability = np.take_along_axis(probabilities, labels[:, None], axis=1)
        self._loss -= float(np.log(np.maximum(label_probability, _MIN_PROBABILITY), dtype=np.float64).sum())

    @property
    def metrics(self) -> EvalMetrics:
        """Errors and mean loss over all images."""
        images = int(self.images.sum())
        top5_error = self.top5_errors.sum() / images if len(self.images) > TOP_K else None
        predicted = len(self.confusions.predicted_classes)
        return EvalMetrics(self.top1_errors.sum() / images, top5_error, self._loss / images, images, predicted)

    @property
    def class_errors(self) -> list[float | None]:
        """Top-1 error of each class; None for a class without images."""
        counts = zip(self.top1_errors.tolist(), self.images.tolist(), strict=True)
        return [errors / images if images else None for errors, images in counts]

    @property
    def mean_class_error(self) -> float:
        """Top-1 error averaged over the classes that have images, with equal weights."""
        return float(np.mean([error for error in self.class_errors if error is not None]))
