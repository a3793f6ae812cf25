"""PNG figure of a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from alexnet_jax.analysis.plots import CORRECT, INCORRECT, save_figure
from alexnet_jax.training.confusion import Confusions

MAX_CLASSES = 30
"""Maximum number of classes for which the matrix is drawn; it is written as CSV for more."""
CELL = 0.42
"""Side of a cell, inches."""


def draw_confusion_matrix(confusions: Confusions, classes: Sequence[str], file: Path, *, title: str) -> None:
    """Draw a confusion matrix: a row for each true class, a column for each predicted class.

    The darker a cell is, the larger is its fraction of the images of the true class; the diagonal is red, errors are blue.
    """
    matrix, count = confusions.matrix, len(classes)
    fractions = row_fractions(confusions)[..., None]
    color = np.where(np.eye(count, dtype=bool)[..., None], to_rgb(CORRECT), to_rgb(INCORRECT))
    names = [shorten(name, 30, placeholder=" …") for name in classes]
    figure = Figure(figsize=(3 + CELL * count, 2.5 + CELL * count), layout="constrained")
    axes = figure.subplots()
    axes.imshow(1 - fractions * (1 - color))
    for (row, column), images in np.ndenumerate(matrix):
        if images:
            axes.text(column, row, str(images), size=8, ha="center", va="center")
    axes.set_xticks(range(count), names, size=9, rotation=90, parse_math=False)
    axes.set_yticks(range(count), names, size=9, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, size=10, parse_math=False)
    save_figure(figure, file)


def row_fractions(confusions: Confusions) -> np.ndarray:
    """Return the numbers of images divided by those of the true class, [classes, classes]; 0 for a class without images."""
    matrix = confusions.matrix
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
