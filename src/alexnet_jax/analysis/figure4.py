"""PNG figures in the style of the paper's Fig. 4: images with their five most probable classes, and retrieved images."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.analysis.examples import LabeledImage, Prediction, Retrieval
from alexnet_jax.analysis.plots import CORRECT, INCORRECT, save_figure
from alexnet_jax.evaluation.metrics import TOP_K

COLUMNS = 4


def draw_predictions(predictions: Sequence[Prediction], file: Path) -> None:
    """Draw images with their true classes and bars for the most probable classes; the bar of the true class is red."""
    columns = min(COLUMNS, len(predictions))
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(2.2 * columns, 3.5 * rows), layout="constrained")
    cells = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.0, 1.2] * rows)
    for axes in cells.flat:
        axes.axis("off")
    for number, prediction in enumerate(predictions):
        row, column = divmod(number, columns)
        _draw_image(cells[2 * row, column], prediction.image, size=10)
        _draw_bars(cells[2 * row + 1, column], prediction)
    save_figure(figure, file)


def draw_retrievals(retrievals: Sequence[Retrieval], file: Path) -> None:
    """Draw one row per retrieval: the query in the first column, then the retrieved images, nearest first."""
    columns = max(len(retrieval.neighbors) for retrieval in retrievals)
    widths = [1, 0.12, *[1] * columns]
    figure = Figure(figsize=(1.4 * columns + 1.6, 1.6 * len(retrievals)), layout="constrained")
    cells = figure.subplots(len(retrievals), len(widths), squeeze=False, width_ratios=widths)
    for axes in cells.flat:
        axes.axis("off")
    for row, retrieval in zip(cells, retrievals, strict=True):
        _draw_image(row[0], retrieval.query, size=8)
        for axes, (image, _) in zip(row[2:], retrieval.neighbors, strict=False):
            _draw_image(axes, image, size=8)
    save_figure(figure, file)


def _draw_image(axes: Axes, image: LabeledImage, *, size: int) -> None:
    """Draw an image with its class below, or its name if it has no class."""
    axes.imshow(image.pixels, interpolation="antialiased")
    text = shorten(image.label or image.name, 26, placeholder=" …")
    axes.text(0.5, -0.04, text, size=size, ha="center", va="top", transform=axes.transAxes, parse_math=False)


def _draw_bars(axes: Axes, prediction: Prediction) -> None:
    for rank, (label, probability) in enumerate(prediction.top_classes):
        axes.barh(rank, probability, 0.9, color=CORRECT if label == prediction.image.label else INCORRECT)
        axes.text(0.02, rank, shorten(label, 30, placeholder=" …"), size=9, va="center", parse_math=False)
    axes.set(xlim=(0, 1), ylim=(TOP_K - 0.4, -1.1))
