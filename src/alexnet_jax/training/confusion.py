"""Confusions: how many images of each class are predicted as each class."""

from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from alexnet_jax.text import csv_cell

MAX_MATRIX_CLASSES = 1000
"""Maximum number of classes for which the confusion matrix is written to a file, of two megabytes for this number."""


class Confusion(NamedTuple):
    """Number of images of a class that are predicted as another class.

    Attributes:
      label: true class.
      prediction: predicted class.
      images: number of these images.
      class_images: number of all images of the true class.
    """

    label: int
    prediction: int
    images: int
    class_images: int


class Confusions:
    """Accumulator of the numbers of images by true and predicted class. Only pairs that occur take memory.

    Examples:
      >>> confusions = Confusions(3)
      >>> confusions.add(np.array([0, 0, 1, -1]), np.array([0, 2, 2, 1]))
      >>> confusions.matrix.tolist()
      [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
      >>> confusions.most_frequent(1)
      [Confusion(label=0, prediction=2, images=1, class_images=2)]
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self._images: Counter[tuple[int, int]] = Counter()

    @classmethod
    def from_matrix(cls, matrix: Int[np.ndarray, "classes classes"]) -> "Confusions":
        """Return the confusions with a given `matrix`."""
        confusions = cls(len(matrix))
        for label, prediction in zip(*np.nonzero(matrix), strict=True):
            confusions._images[int(label), int(prediction)] = int(matrix[label, prediction])
        return confusions

    def add(self, labels: Int[np.ndarray, " images"], predictions: Int[np.ndarray, " images"]) -> None:
        """Add a batch.

        Args:
          labels: true classes; images with a negative label are padding and are not counted.
          predictions: most probable classes.
        """
        valid = labels >= 0
        self._images.update(zip(labels[valid].tolist(), predictions[valid].tolist(), strict=True))

    @property
    def total(self) -> int:
        """Number of images."""
        return self._images.total()

    @property
    def true_classes(self) -> list[int]:
        """Classes that have images, in order."""
        return sorted({label for label, _ in self._images})

    @property
    def predicted_classes(self) -> list[int]:
        """Classes that are predicted for at least one image, in order."""
        return sorted({prediction for _, prediction in self._images})

    @property
    def matrix(self) -> Int[np.ndarray, "classes classes"]:
        """Numbers of images; a row for each true class, a column for each predicted class."""
        matrix = np.zeros((self.num_classes, self.num_classes), np.int64)
        for pair, images in self._images.items():
            matrix[pair] = images
        return matrix

    def most_frequent(self, count: int) -> list[Confusion]:
        """Return the pairs of different classes with the most images, at most `count`; ties are in the order of the classes."""
        totals: Counter[int] = Counter()
        for (label, _), images in self._images.items():
            totals[label] += images
        wrong = (
            Confusion(label, prediction, images, totals[label])
            for (label, prediction), images in self._images.items()
            if label != prediction
        )
        return nsmallest(count, wrong, key=lambda each: (-each.images, each.label, each.prediction))

    def csv_rows(self, classes: Sequence[str]) -> Iterator[list[str]]:
        """Yield the rows of a CSV file: predicted classes in the header, then the true class and the numbers of its images.

        Names that a spreadsheet would take for a formula are quoted, see `text.csv_cell`.
        """
        names = [csv_cell(name) for name in classes]
        yield ["class", *names]
        for name, row in zip(names, self.matrix, strict=True):
            yield [name, *map(str, row.tolist())]
