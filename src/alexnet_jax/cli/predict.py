"""`predict`: print the most probable classes of photos, by a trained network or the mean of several."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.table import Table

from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.photo_files import check_all_read, photo_files, read_photos
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import PlainConsole, track_progress
from alexnet_jax.data.pipeline.photo import decode_photo
from alexnet_jax.data.sources.file_tree import Entry
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.ensemble import Ensemble
from alexnet_jax.evaluation.predictor import ClassProbability, Views
from alexnet_jax.evaluation.tables import ranked_columns
from alexnet_jax.text import csv_cell
from alexnet_jax.weights.trained_model import is_model, load

Prediction = tuple[str, list[ClassProbability]]
"""Path of a photo, and its most probable classes."""


@dataclass(frozen=True)
class Predict:
    """Print the most probable classes of photos, by a trained network or the mean of several.

    Photos of any size are scaled and cropped to a square like the images of a data set. Files that cannot be read are named and
    skipped, and the exit code is then 1.

    Attributes:
      run: trained network: run folder, RUN/checkpoints/STEP or .safetensors file.
      paths: more trained networks, if any, then photos, or folders or tar archives of photos.
      top: number of classes to print per photo.
      views: views of a photo over which probabilities are averaged: its center crop, the ten views of the paper, or the nine
        views of the original code for CIFAR.
      best: for a run folder, use the checkpoint with the smallest validation error instead of the latest one.
      format: format of the output: a table, CSV with one row per photo, or JSON.
      batch_size: maximum number of photos per batch.
    """

    # Two arguments, because argparse would find nothing left for one of variable length after an option that follows RUN.
    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN…] PHOTO|FOLDER…")] = ()
    top: int = 5
    views: Views = "center"
    best: bool = False
    format: Literal["table", "csv", "json"] = "table"
    batch_size: int = 128


def run(arguments: list[str]) -> None:
    """Print the predictions; exit with 1 if a photo cannot be read."""
    settings = parse(Predict, "predict", arguments)
    check_number("--top", settings.top, at_least=1)
    check_number("--batch-size", settings.batch_size, at_least=1)
    more_networks = [path for path in settings.paths if is_model(path)]
    photos = [path for path in settings.paths if path not in more_networks]
    if settings.run is None or not photos:
        raise UserError("pass a trained network, then one or more photos or folders: alexnet-jax predict RUN photo.jpg")
    files = [file for path in photos for file in photo_files(path)]
    configure_process()
    models = [load(path, best=settings.best) for path in (settings.run, *more_networks)]
    ensemble = Ensemble(models, views=settings.views, batch_size=settings.batch_size)
    batches = [files[start : start + settings.batch_size] for start in range(0, len(files), settings.batch_size)]
    if len(batches) > 1:
        batches = track_progress(batches, "predicting", len(batches), "batch")
    predictions = [prediction for batch in batches for prediction in _predict(ensemble, batch, settings.top)]
    if predictions:
        _WRITERS[settings.format](predictions)
    check_all_read(len(files), len(predictions))


def _predict(ensemble: Ensemble, files: Sequence[Entry], top: int) -> Iterator[Prediction]:
    """Yield the predictions for the files that can be read; print the reason for each other file."""

    def decode(data: bytes, name: str) -> dict[int, np.ndarray]:
        return {size: decode_photo(data, name, size) for size in ensemble.image_sizes}

    names, photos = read_photos(files, decode)
    if photos:
        batch = {size: np.stack([photo[size] for photo in photos]) for size in ensemble.image_sizes}
        yield from zip(names, ensemble.classify(batch, top), strict=True)


def _print_table(predictions: Sequence[Prediction]) -> None:
    table = Table("photo", "class", "probability")
    for name, classes in predictions:
        for rank, (label, probability) in enumerate(classes):
            last = rank == len(classes) - 1
            table.add_row("" if rank else name, label, f"{probability:.1%}", end_section=last)
    PlainConsole(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


def _print_csv(predictions: Sequence[Prediction]) -> None:
    num_ranks = max((len(classes) for _, classes in predictions), default=0)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", *ranked_columns(num_ranks)])
    for name, classes in predictions:
        cells = (cell for label, probability in classes for cell in (csv_cell(label), f"{probability:.6g}"))
        writer.writerow([csv_cell(name), *cells])


def _print_json(predictions: Sequence[Prediction]) -> None:
    rows = [
        {"image": name, "classes": [{"class": label, "probability": round(probability, 6)} for label, probability in classes]}
        for name, classes in predictions
    ]
    print(json.dumps(rows, indent=1))


_WRITERS = {"table": _print_table, "csv": _print_csv, "json": _print_json}
