"""`predict`: print the most probable classes of photos, by a trained network or the mean of several."""

import csv
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Float
from rich.table import Table

from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.photo_files import check_all_read, photo_files, read_photos
from alexnet_jax.cli.process import configure_inference
from alexnet_jax.console import PlainConsole, track_progress
from alexnet_jax.data.class_names import ilsvrc_numbers
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.pipeline.photo import decode_photo
from alexnet_jax.data.records import Dataset, is_prepared, open_dataset
from alexnet_jax.data.sources import layout
from alexnet_jax.data.sources.file_table import Entry
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.ensemble import Ensemble
from alexnet_jax.evaluation.metrics import top_classes
from alexnet_jax.evaluation.predictor import Views
from alexnet_jax.evaluation.tables import ranked_columns
from alexnet_jax.parallel.distributed import DistributedOptions, check_same_settings, is_main_process, sync_processes
from alexnet_jax.text import csv_cell
from alexnet_jax.weights.trained_model import TrainedModel, is_model, load


class TopClasses(NamedTuple):
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
      batch_size: maximum number of photos per batch, on all devices together.
      devices: number of devices to use in every process; None uses all GPUs, or one CPU device.
      processes: arguments for several processes, which divide each batch: coordinator, number of processes and index of this one.
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
    devices: int | None = None
    processes: Annotated[DistributedOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=DistributedOptions)


def run(arguments: list[str]) -> None:
    """Print the predictions; exit with 1 if a photo cannot be read. With several processes, process 0 prints."""
    settings = parse(Predict, "predict", arguments)
    check_number("--top", settings.top, at_least=1)
    check_number("--batch-size", settings.batch_size, at_least=1)
    more_networks = [path for path in settings.paths if is_model(path)]
    photos = [path for path in settings.paths if path not in more_networks]
    if settings.run is None or not photos:
        raise UserError("pass a trained network, then one or more photos or folders: alexnet-jax predict RUN photo.jpg")
    configure_inference(settings.devices, settings.processes)
    datasets = [open_dataset(path) for path in photos if is_prepared(path)]
    files = [file for path in photos if not is_prepared(path) for file in photo_files(path)]
    models = [load(path, best=settings.best) for path in (settings.run, *more_networks)]
    inputs = [[file.name, file.size] for file in files] + [dataset.checksum for dataset in datasets]
    options = [settings.split, settings.views, settings.batch_size, settings.format]
    check_same_settings([[[model.config.to_json(), model.step] for model in models], inputs, options])
    ensemble = Ensemble(models, views=settings.views, batch_size=settings.batch_size, devices=settings.devices)
    splits = [_split(ensemble, dataset, settings) for dataset in datasets]
    predictions = chain(
        *(_predict_split(ensemble, split, settings.top) for split in splits),
        _predict_files(ensemble, files, settings),
    )
    numbers = _ilsvrc_numbers(models[0]) if settings.format == "ilsvrc" else None
    if not is_main_process():
        deque(predictions, maxlen=0)  # compute the part of this process
    elif numbers is not None:
        stored = (split.images.record(index).name for split in splits for index in range(len(split.images)))
        _print_ilsvrc(numbers, [*stored, *(file.name for file in files)], predictions)
    elif settings.format == "table":
        _print_table(models[0].printed_classes, predictions)
    elif settings.format == "csv":
        _print_csv(models[0].classes, predictions)
    else:
        _print_json(models[0], predictions)
    sync_processes("predict")


class _Split(NamedTuple):
    """Split of a prepared data set, and its images."""

    dataset: Dataset
    name: str
    images: DecodedImages


def _split(ensemble: Ensemble, dataset: Dataset, settings: Predict) -> _Split:
    """Return the split of a prepared data set to predict.

    Raises:
      UserError: if the data set has no such split or other classes, or, for the contest's format, images of it were skipped.
    """
    manifest = dataset.manifest
    name = settings.split or next(iter(manifest.unlabeled), None) or dataset.evaluation_split
    images = DecodedImages(dataset, name, manifest.size)
    skipped = [image for image in manifest.skipped if layout.shard_split(image) in (name, None)]
    if settings.format == "ilsvrc" and skipped:
        problem = f"lacks {len(skipped):,} {name} images that could not be read ({skipped[0]})"
        raise UserError(f"{dataset.path} {problem}: replace them and prepare it again")
    ensemble.check(dataset)
    return _Split(dataset, name, images)


def _predict_split(ensemble: Ensemble, split: _Split, top: int) -> Iterator[TopClasses]:
    """Yield the predictions for the images of a split, in order."""
    num_batches, index = -(-len(split.images) // ensemble.batch_size), 0
    batches = ensemble.batches(split.dataset, split.name)
    for batch in track_progress(batches, f"predicting {split.name}", num_batches, "batch"):
        rows = ensemble.mean(batch.probabilities)
        if is_main_process():  # the others would read all images for their names
            yield from _top((split.images.record(index + i).name for i in range(len(rows))), rows, top)
        index += len(rows)


def _predict_files(ensemble: Ensemble, files: Sequence[Entry], settings: Predict) -> Iterator[TopClasses]:
    """Yield the predictions for the files that can be read, in order; print the reason for each other file.

    Raises:
      UserError: at the end, if files cannot be read. The contest's format ends before them: a missing line would move later ones.
    """

    def decode(data: bytes, name: str) -> dict[int, np.ndarray]:
        return {size: decode_photo(data, name, size) for size in ensemble.image_sizes}

    num_read = 0
    for number, (names, photos) in enumerate(read_photos(files, decode, ensemble.batch_size, "predicting"), 1):
        num_read += len(names)
        if settings.format == "ilsvrc":
            check_all_read(len(files), num_read + max(0, len(files) - number * ensemble.batch_size))
        if photos:
            batch = {size: np.stack([photo[size] for photo in photos]) for size in ensemble.image_sizes}
            yield from _top(names, ensemble(batch), settings.top)
    check_all_read(len(files), num_read)


def _top(names: Iterable[str], rows: Float[np.ndarray, "images classes"], top: int) -> Iterator[TopClasses]:
    for name, row, labels in zip(names, rows, top_classes(rows, top), strict=True):
        yield TopClasses(name, labels.tolist(), row[labels].tolist())


def _ilsvrc_numbers(model: TrainedModel) -> list[int]:
    """Return the ILSVRC2012_ID of each class of a model.

    Raises:
      UserError: if the classes are not ILSVRC's.
    """
    numbers = ilsvrc_numbers(model.classes)
    if numbers is None:
        raise UserError(f"{model} has classes that are not WordNet ids of ILSVRC: choose another --format, or another network")
    return numbers


def _print_table(classes: Sequence[str], predictions: Iterable[TopClasses]) -> None:
    """Print a table once all predictions are known, because they determine the widths of its columns.

    If an error ends the predictions, those before it are printed.
    """
    table = Table("photo", "class", "probability")
    try:
        for name, labels, probabilities in predictions:
            for rank, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
                last = rank == len(labels) - 1
                table.add_row("" if rank else name, classes[label], f"{probability:.1%}", end_section=last)
    finally:
        if table.row_count:
            PlainConsole(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


def _print_csv(classes: Sequence[str], predictions: Iterable[TopClasses]) -> None:
    def print_row(cells: list[str]) -> None:  # a progress bar may replace sys.stdout
        csv.writer(sys.stdout, lineterminator="\n").writerow(cells)

    for index, (name, labels, probabilities) in enumerate(predictions):
        if not index:
            print_row(["image", *ranked_columns(len(labels))])
        ranked = zip(labels, probabilities, strict=True)
        print_row([csv_cell(name), *(cell for label, p in ranked for cell in (csv_cell(classes[label]), f"{p:.6g}"))])


def _print_json(model: TrainedModel, predictions: Iterable[TopClasses]) -> None:
    """Print a list, one image at a time. It is complete JSON even if an error ends the predictions."""
    names, num_printed = model.printed_classes, 0
    try:
        for name, labels, probabilities in predictions:
            ranked = [
                {"class": model.classes[label], "name": names[label], "probability": round(probability, 6)}
                for label, probability in zip(labels, probabilities, strict=True)
            ]
            text = json.dumps([{"image": name, "classes": ranked}], indent=1)[2:-2]  # without the brackets and their newlines
            print(",\n" if num_printed else "[\n", text, sep="", end="")
            num_printed += 1
    finally:
        if num_printed:
            print("\n]")


def _print_ilsvrc(numbers: Sequence[int], names: Sequence[str], predictions: Iterable[TopClasses]) -> None:
    """Print the ILSVRC2012_ID of each image's classes, sorted by the file names of the images.

    Args:
      numbers: number of each class.
      names: names of all images, in the order of the predictions.
      predictions: predictions. A line is printed as soon as those of all earlier names are.
    """
    order = sorted(range(len(names)), key=lambda index: PurePosixPath(names[index]).name)
    waiting: dict[int, str] = {}
    num_printed = 0
    for index, prediction in enumerate(predictions):
        waiting[index] = " ".join(str(numbers[label]) for label in prediction.labels)
        while num_printed < len(order) and order[num_printed] in waiting:
            print(waiting.pop(order[num_printed]))
            num_printed += 1
