"""`predict`: print the most probable classes of photos, by a trained network or the mean of several."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Float
from rich.table import Table

from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.photo_files import check_all_read, photo_files, read_photos
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import PlainConsole, track_progress
from alexnet_jax.data.class_names import ilsvrc_numbers
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.pipeline.photo import decode_photo
from alexnet_jax.data.records import Dataset, is_prepared, open_dataset
from alexnet_jax.data.sources import layout
from alexnet_jax.data.sources.file_tree import Entry
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.ensemble import Ensemble
from alexnet_jax.evaluation.metrics import top_classes
from alexnet_jax.evaluation.predictor import Views
from alexnet_jax.evaluation.tables import ranked_columns
from alexnet_jax.text import csv_cell
from alexnet_jax.weights.trained_model import TrainedModel, is_model, load


class Prediction(NamedTuple):
    """Name of an image, and the labels and probabilities of its most probable classes, most probable first."""

    name: str
    labels: list[int]
    probabilities: list[float]


@dataclass(frozen=True)
class Predict:
    """Print the most probable classes of photos, by a trained network or the mean of several.

    Photos of any size are scaled and cropped to a square like the images of a data set. Files that cannot be read are named and
    skipped, and the exit code is then 1.

    Attributes:
      run: trained network: run folder, RUN/checkpoints/STEP or .safetensors file.
      paths: more trained networks, if any, then photos, or folders or tar archives of photos, or a prepared data set.
      split: split of a prepared data set; None uses the one without labels, if any, or else validation or test.
      top: number of classes to print per photo.
      views: views of a photo over which probabilities are averaged: its center crop, the ten views of the paper, or the nine
        views of the original code for CIFAR.
      best: for a run folder, use the checkpoint with the smallest validation error instead of the latest one.
      format: format of the output: a table; CSV with one row per photo, or JSON, in which classes have the names of the data set,
        WordNet ids for ImageNet; or "ilsvrc" for the contest's format: the class numbers of one image per line, the most probable
        first, in the order of the names of the images.
      batch_size: maximum number of photos per batch.
    """

    # Two arguments, because argparse would find nothing left for one of variable length after an option that follows RUN.
    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN…] PHOTO|FOLDER…")] = ()
    split: str | None = None
    top: int = 5
    views: Views = "center"
    best: bool = False
    format: Literal["table", "csv", "json", "ilsvrc"] = "table"
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
    datasets = [open_dataset(path) for path in photos if is_prepared(path)]
    files = [file for path in photos if not is_prepared(path) for file in photo_files(path)]
    configure_process()
    models = [load(path, best=settings.best) for path in (settings.run, *more_networks)]
    ensemble = Ensemble(models, views=settings.views, batch_size=settings.batch_size)
    write = _writer(settings.format, models[0])
    predictions = [each for dataset in datasets for each in _predict_dataset(ensemble, dataset, settings)]
    num_stored = len(predictions)
    batches = [files[start : start + settings.batch_size] for start in range(0, len(files), settings.batch_size)]
    if len(batches) > 1:
        batches = track_progress(batches, "predicting", len(batches), "batch")
    predictions += [each for batch in batches for each in _predict(ensemble, batch, settings.top)]
    if settings.format == "ilsvrc":  # a missing line would move all later ones
        check_all_read(len(files), len(predictions) - num_stored)
    if predictions:
        write(predictions)
    check_all_read(len(files), len(predictions) - num_stored)


def _predict_dataset(ensemble: Ensemble, dataset: Dataset, settings: Predict) -> Iterator[Prediction]:
    """Yield the predictions for the images of a split of a prepared data set, in order.

    Raises:
      UserError: if the data set has no such split or other classes, or, for the contest's format, images of it were skipped.
    """
    manifest = dataset.manifest
    split = settings.split or next(iter(manifest.unlabeled), None) or dataset.evaluation_split
    images = DecodedImages(dataset, split, manifest.size)
    skipped = [name for name in manifest.skipped if layout.shard_split(name) in (split, None)]
    if settings.format == "ilsvrc" and skipped:
        problem = f"lacks {len(skipped):,} {split} images that could not be read ({skipped[0]})"
        raise UserError(f"{dataset.path} {problem}: replace them and prepare it again")
    ensemble.check(dataset)
    num_batches, index = -(-len(images) // ensemble.batch_size), 0
    for batch in track_progress(ensemble.batches(dataset, split), f"predicting {split}", num_batches, "batch"):
        rows = ensemble.mean(batch.probabilities)
        yield from _top((images.record(index + i).name for i in range(len(rows))), rows, settings.top)
        index += len(rows)


def _predict(ensemble: Ensemble, files: Sequence[Entry], top: int) -> Iterator[Prediction]:
    """Yield the predictions for the files that can be read; print the reason for each other file."""

    def decode(data: bytes, name: str) -> dict[int, np.ndarray]:
        return {size: decode_photo(data, name, size) for size in ensemble.image_sizes}

    names, photos = read_photos(files, decode)
    if photos:
        batch = {size: np.stack([photo[size] for photo in photos]) for size in ensemble.image_sizes}
        yield from _top(names, ensemble(batch), top)


def _top(names: Iterable[str], rows: Float[np.ndarray, "images classes"], top: int) -> Iterator[Prediction]:
    for name, row, labels in zip(names, rows, top_classes(rows, top), strict=True):
        yield Prediction(name, labels.tolist(), row[labels].tolist())


def _writer(format: str, model: TrainedModel) -> Callable[[Sequence[Prediction]], None]:
    """Return the function that prints predictions.

    Raises:
      UserError: if the format is that of the contest, and the classes are not ILSVRC's.
    """
    if format == "ilsvrc":
        numbers = ilsvrc_numbers(model.classes)
        if numbers is None:
            raise UserError(
                f"{model} has classes that are not WordNet ids of ILSVRC: choose another --format, or another network"
            )
        return partial(_print_ilsvrc, numbers)
    if format == "table":
        return partial(_print_table, model.printed_classes)
    return partial(_print_csv, model.classes) if format == "csv" else partial(_print_json, model)


def _print_table(classes: Sequence[str], predictions: Sequence[Prediction]) -> None:
    table = Table("photo", "class", "probability")
    for name, labels, probabilities in predictions:
        for rank, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
            last = rank == len(labels) - 1
            table.add_row("" if rank else name, classes[label], f"{probability:.1%}", end_section=last)
    PlainConsole(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


def _print_csv(classes: Sequence[str], predictions: Sequence[Prediction]) -> None:
    num_ranks = max((len(each.labels) for each in predictions), default=0)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", *ranked_columns(num_ranks)])
    for name, labels, probabilities in predictions:
        ranked = zip(labels, probabilities, strict=True)
        writer.writerow([csv_cell(name), *(cell for label, p in ranked for cell in (csv_cell(classes[label]), f"{p:.6g}"))])


def _print_json(model: TrainedModel, predictions: Sequence[Prediction]) -> None:
    def ranked(prediction: Prediction) -> list[dict[str, str | float]]:
        return [
            {"class": model.classes[label], "name": names[label], "probability": round(probability, 6)}
            for label, probability in zip(prediction.labels, prediction.probabilities, strict=True)
        ]

    names = model.printed_classes
    print(json.dumps([{"image": each.name, "classes": ranked(each)} for each in predictions], indent=1))


def _print_ilsvrc(numbers: Sequence[int], predictions: Sequence[Prediction]) -> None:
    """Print the ILSVRC2012_ID of each image's classes, sorted by the file names of the images."""
    for prediction in sorted(predictions, key=lambda each: PurePosixPath(each.name).name):
        print(*(numbers[label] for label in prediction.labels))
