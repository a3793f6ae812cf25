"""Formatting of errors as JSON, CSV rows, terminal lines and tables."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from alexnet_jax.evaluation.metrics import TOP_K, ErrorCounter, top_classes
from alexnet_jax.text import csv_cell
from alexnet_jax.training.confusion import Confusions


def metrics_json(counter: ErrorCounter) -> dict[str, Any]:
    """Return the errors and loss over all images as JSON, rounded to six decimals."""
    return {**counter.metrics.to_json(), "mean_class_error": round(counter.mean_class_error, 6)}


def format_errors(name: str, views: str, metrics: dict[str, Any]) -> str:
    """Return one line with the errors of a network or of a mean of networks, from `metrics_json`."""
    parts = [f"top-1 error {metrics['top1_error']:.2%}"]
    parts += [] if metrics["top5_error"] is None else [f"top-5 error {metrics['top5_error']:.2%}"]
    parts += [f"mean class error {metrics['mean_class_error']:.2%}", f"loss {metrics['loss']:.4f}"]
    return f"{views:6}  {'  '.join(parts)}  {name}"


def ranked_columns(count: int) -> list[str]:
    """Return the names of the CSV columns of an image's most probable classes.

    Examples:
      >>> ranked_columns(2)
      ['class_1', 'probability_1', 'class_2', 'probability_2']
    """
    return [f"{column}_{rank}" for rank in range(1, count + 1) for column in ("class", "probability")]


class PredictionRows:
    """Rows of the predictions CSV file: image name, true class, and the five most probable classes with their probabilities.

    Names that a spreadsheet would take for a formula are quoted, see `text.csv_cell`.
    """

    def __init__(self, classes: Sequence[str], image_names: Iterator[str]):
        self._classes, self._image_names = classes, image_names

    @property
    def header(self) -> list[str]:
        """Column names."""
        return ["image", "class", *ranked_columns(min(TOP_K, len(self._classes)))]

    def rows(self, labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "images classes"]) -> Iterator[list[str]]:
        """Yield one row per image of the next batch."""
        for label, row, top in zip(labels, probabilities, top_classes(probabilities), strict=True):
            line = [csv_cell(next(self._image_names)), csv_cell(self._classes[int(label)])]
            for predicted in map(int, top):
                line += [csv_cell(self._classes[predicted]), f"{row[predicted]:.6g}"]
            yield line


def class_errors(classes: Sequence[str], counters: dict[str, ErrorCounter]) -> list[dict[str, Any]]:
    """Return the number of images and the top-1 errors of each class as JSON; the counters, by views, counted the same images."""
    errors = {views: counter.class_errors for views, counter in counters.items()}
    images = next(iter(counters.values())).images.tolist()
    return [
        {"class": name, "images": images[label], "top1_error": {views: _round(values[label]) for views, values in errors.items()}}
        for label, name in enumerate(classes)
    ]


def class_csv_rows(classes: list[dict[str, Any]]) -> list[list[str]]:
    """Return the result of `class_errors` as CSV rows, with a header row."""
    header = ["class", "images", *(f"top1_error_{views}" for views in classes[0]["top1_error"])]
    return [
        header,
        *([csv_cell(row["class"]), str(row["images"]), *map(_csv_value, row["top1_error"].values())] for row in classes),
    ]


def class_table(classes: list[dict[str, Any]]) -> Table:
    """Return the result of `class_errors` as a table for the terminal."""
    table = Table("class", "images", *(f"top-1 error, {views}" for views in classes[0]["top1_error"]))
    for row in classes:
        errors = ("—" if error is None else f"{error:.1%}" for error in row["top1_error"].values())
        table.add_row(row["class"], str(row["images"]), *errors)
    return table


def confusions_json(confusions: Confusions, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Return the most frequent confusions as JSON, most frequent first."""
    return [
        {"class": classes[each.label], "predicted": classes[each.prediction], "images": each.images, "of": each.class_images}
        for each in confusions.most_frequent(count)
    ]


def confusion_table(confusions: list[dict[str, Any]], views: str) -> Table:
    """Return the result of `confusions_json` as a table for the terminal."""
    table = Table(f"most frequent confusions, {views}", "images")
    for row in confusions:
        table.add_row(f"{row['class']} → {row['predicted']}", f"{row['images']} of {row['of']}")
    return table


def _round(error: float | None) -> float | None:
    return None if error is None else round(error, 6)


def _csv_value(error: float | None) -> str:
    return "" if error is None else str(error)
