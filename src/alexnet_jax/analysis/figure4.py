"""The paper's Fig. 4 as PNG files: images with the network's five best guesses, and images with those nearest to them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.analysis.examples import GUESSES, Picture, Prediction, Retrieved

COLUMNS = 4
RIGHT, WRONG = "#e5989b", "#a8c0dd"
DPI = 110


def draw_predictions(predictions: Sequence[Prediction], file: Path) -> None:
    """Images, the classes they have, and bars for the most probable ones, that of the image's class in another color."""
    columns = min(COLUMNS, len(predictions))
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(2.2 * columns, 3.5 * rows), layout="constrained")
    cells = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.0, 1.2] * rows)
    for axes in cells.flat:
        axes.axis("off")
    for number, prediction in enumerate(predictions):
        row, column = divmod(number, columns)
        _show(cells[2 * row, column], prediction.picture, size=10)
        _bars(cells[2 * row + 1, column], prediction)
    _save(figure, file)


def draw_retrieved(retrieved: Sequence[Retrieved], file: Path) -> None:
    """Images in the first column, and in each row the images nearest to the first."""
    columns = max(len(of.nearest) for of in retrieved)
    widths = [1, 0.12, *[1] * columns]
    figure = Figure(figsize=(1.4 * columns + 1.6, 1.6 * len(retrieved)), layout="constrained")
    cells = figure.subplots(len(retrieved), len(widths), squeeze=False, width_ratios=widths)
    for axes in cells.flat:
        axes.axis("off")
    for row, of in zip(cells, retrieved, strict=True):
        _show(row[0], of.picture, size=8)
        for axes, (picture, _) in zip(row[2:], of.nearest, strict=False):
            _show(axes, picture, size=8)
    _save(figure, file)


def _show(axes: Axes, picture: Picture, *, size: int) -> None:
    """A picture, and its class below, or its name if it has none."""
    axes.imshow(picture.pixels, interpolation="antialiased")
    text = shorten(picture.label or picture.name, 26, placeholder=" …")
    axes.text(0.5, -0.04, text, size=size, ha="center", va="top", transform=axes.transAxes, parse_math=False)


def _bars(axes: Axes, prediction: Prediction) -> None:
    for place, (label, probability) in enumerate(prediction.guesses):
        axes.barh(place, probability, 0.9, color=RIGHT if label == prediction.picture.label else WRONG)
        axes.text(0.02, place, shorten(label, 30, placeholder=" …"), size=9, va="center", parse_math=False)
    axes.set(xlim=(0, 1), ylim=(GUESSES - 0.4, -1.1))


def _save(figure: Figure, file: Path) -> None:
    with warnings.catch_warnings():  # names may be of letters that the font does not have: it draws a box, warning enough
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, dpi=DPI)
