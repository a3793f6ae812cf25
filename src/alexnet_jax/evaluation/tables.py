"""How errors of a test are told and written down: lines, the table of classes, predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from alexnet_jax.evaluation.metrics import BEST, ErrorCounter, top_classes


def rounded(tally: ErrorCounter) -> dict[str, Any]:
    """Errors as JSON."""
    errors = {**asdict(tally.errors), "mean_class_error": tally.mean_of_classes}
    return {name: round(value, 6) for name, value in errors.items()}


def format_errors(of: str, views: str, errors: dict[str, Any]) -> str:
    """The errors of a network or a mean, in a line."""
    parts = [f"top-1 error {errors['top1_error']:.2%}", f"top-5 error {errors['top5_error']:.2%}"]
    parts += [f"mean of the classes {errors['mean_class_error']:.2%}", f"loss {errors['loss']:.4f}"]
    return f"{views:6}  {'  '.join(parts)}  {of}"


class PredictionRows:
    """Rows of a CSV file: name of the image, its class, the five most probable classes with their probabilities.

    Args:
      classes: their names.
      names: of the images, in order.
    """

    def __init__(self, classes: Sequence[str], names: Iterator[str]):
        self._classes, self._names = classes, names

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        places = range(1, min(BEST, len(self._classes)) + 1)
        return ["image", "class", *(f"{what}_{place}" for place in places for what in ("class", "probability"))]

    def of(self, labels: Int[np.ndarray, " images"], probabilities: Float[np.ndarray, "images classes"]) -> Iterator[list[str]]:
        """The rows of the next images."""
        for label, row, best in zip(labels, probabilities, top_classes(probabilities), strict=True):
            line = [next(self._names), self._classes[int(label)]]
            for place in best.tolist():
                line += [self._classes[place], f"{row[place]:.6g}"]
            yield line


def of_classes(classes: Sequence[str], tallies: dict[str, ErrorCounter]) -> list[dict[str, Any]]:
    """Images and errors of each class, by views, as JSON."""
    errors = {views: tally.of_classes for views, tally in tallies.items()}
    images = next(iter(tallies.values())).images.tolist()
    return [
        {"class": name, "images": images[place], "top1_error": {views: _round(of[place]) for views, of in errors.items()}}
        for place, name in enumerate(classes)
    ]


def class_rows(classes: list[dict[str, Any]]) -> list[list[str]]:
    """The same as rows of a CSV file, with their header."""
    header = ["class", "images", *(f"top1_error_{views}" for views in classes[0]["top1_error"])]
    return [header, *([of["class"], str(of["images"]), *map(_or_nothing, of["top1_error"].values())] for of in classes)]


def class_table(classes: list[dict[str, Any]]) -> Table:
    """The same for a person."""
    table = Table("class", "images", *(f"top-1 error, {views}" for views in classes[0]["top1_error"]))
    for of in classes:
        errors = ("—" if error is None else f"{error:.1%}" for error in of["top1_error"].values())
        table.add_row(of["class"], str(of["images"]), *errors)
    return table


def _round(error: float | None) -> float | None:
    return None if error is None else round(error, 6)


def _or_nothing(error: float | None) -> str:
    return "" if error is None else str(error)
