"""`evaluate`: measure the errors of trained networks, and of the mean of their predictions, on a split of a data set.

docs/evaluation.md describes the files that the command writes.
"""

import csv
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jaxtyping import Float

from alexnet_jax.analysis.confusion_matrix import MAX_CLASSES, draw_confusion_matrix
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.process import configure_inference
from alexnet_jax.console import console, count, track_progress
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.evaluation.coefficients import CachedPredictions, search_coefficients
from alexnet_jax.evaluation.ensemble import Ensemble, ModelPredictions
from alexnet_jax.evaluation.metrics import ErrorCounter
from alexnet_jax.evaluation.predictor import Views
from alexnet_jax.evaluation.tables import (
    PredictionRows,
    class_csv_rows,
    class_errors,
    class_table,
    confusion_table,
    confusions_json,
    format_errors,
    metrics_json,
)
from alexnet_jax.files import atomic_text_writer, write_json
from alexnet_jax.parallel.distributed import (
    DistributedOptions,
    check_same_settings,
    is_main_process,
    main_process_first,
    sync_processes,
)
from alexnet_jax.training.confusion import MAX_MATRIX_CLASSES
from alexnet_jax.version import versions
from alexnet_jax.weights.trained_model import load

CIFAR_SIZE = 32
"""Side of CIFAR images, pixels."""
MAX_PRINTED_CLASSES = 20
"""Maximum number of classes for which the table of class errors is printed; it is always written to files."""
PRINTED_CONFUSIONS = 5
"""Number of confusions that are printed."""
STORED_CONFUSIONS = 100
"""Number of confusions in errors.json."""


@dataclass(frozen=True)
class Evaluate:
    """Measure the errors of a trained network, or of several networks and the mean of their predictions.

    Attributes:
      networks: run folders (latest checkpoint), checkpoint folders RUN/checkpoints/STEP, or .safetensors files; several form an
        ensemble.
      data: a folder of images, a prepared data set, or a name in --data-dir; None uses the training data of the first network.
        All images of a folder without splits are evaluated.
      data_dir: folder of prepared data sets.
      split: split to evaluate; None uses validation, or test if there is no validation split.
      views: views of an image over which probabilities are averaged: its center crop, the ten views of the paper, or the nine
        views of the original code for CIFAR. Repeat the option to evaluate several. The default is center and ten, or center and
        nine for images of 32 pixels.
      best: for a run folder, use the checkpoint with the smallest validation error instead of the latest one.
      search: split on which to search the coefficients of a weighted mean, as the original code did on validation images; None
        evaluates no weighted mean.
      to: folder to write to; None uses `evaluation/DATA-SPLIT`, or `ensemble/DATA-SPLIT` for several networks, in the run folder
        of the first network, or for a .safetensors file in a folder beside it with its name.
      batch_size: images per batch, on all devices together.
      devices: number of devices to use in every process; None uses all GPUs, or one CPU device.
      processes: arguments for several processes, which divide each batch: coordinator, number of processes and index of this one.
    """

    networks: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN…")]
    data: str | None = None
    data_dir: Path = Path("data")
    split: str | None = None
    views: Annotated[tuple[Views, ...], tyro.conf.UseAppendAction] = ()  # a list would take the networks that follow it
    best: bool = False
    search: str | None = None
    to: Path | None = None
    batch_size: int = 128
    devices: int | None = None
    processes: Annotated[DistributedOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=DistributedOptions)


def run(arguments: list[str]) -> None:
    """Measure the errors and print the path of errors.json."""
    settings = parse(Evaluate, "evaluate", arguments)
    configure_inference(settings.devices, settings.processes)
    file = evaluate(settings)
    if is_main_process():
        print(file)
    sync_processes("evaluate")


def evaluate(settings: Evaluate) -> Path:
    """Measure and print the errors, write the output files (in process 0), and return the path of errors.json.

    Raises:
      UserError: if a network, the data set or a split does not exist or cannot be read, the networks or the data set have
        different classes, or an option is invalid.
    """
    if not settings.networks:
        raise UserError("pass one or more run folders or checkpoints: alexnet-jax evaluate RUN")
    if settings.search and len(settings.networks) == 1:
        raise UserError("--search requires at least two networks: pass another network, or omit --search")
    check_number("--batch-size", settings.batch_size, at_least=1)
    models = [load(path, best=settings.best) for path in settings.networks]
    if len({(model.path, model.step) for model in models}) < len(models):
        raise UserError("a network is named twice: pass each one once")
    dataset, split = _find_split(settings, models[0].config.data.path)
    views: tuple[Views, ...] = settings.views or ("center", "nine" if dataset.manifest.size == CIFAR_SIZE else "ten")
    saved = [[model.config.to_json(), model.step] for model in models]
    check_same_settings([saved, dataset.checksum, split, settings.search, views, settings.batch_size])
    kind = "evaluation" if len(models) == 1 else "ensemble"
    folder = settings.to or models[0].output_dir / kind / f"{dataset.path.name}-{split}"
    console.print(f"Evaluating {count(len(models), 'network')} on the {split} split of {dataset.path}", markup=False)

    errors: list[dict[str, Any]] = []
    class_counters: dict[str, ErrorCounter] = {}
    for view in dict.fromkeys(views):
        ensemble = Ensemble(models, views=view, batch_size=settings.batch_size, devices=settings.devices)
        ensemble.check(dataset)
        means = _mean_coefficients(ensemble, settings, dataset)
        for name, counter in _count_errors(ensemble, dataset, split, means, folder / f"predictions-{view}.csv").items():
            coefficients = np.round(means[name], 6).tolist()
            errors.append({"name": name, "views": view, **metrics_json(counter), "coefficients": coefficients})
            console.print(format_errors(name, view, errors[-1]), markup=False)
            class_counters[view] = counter  # keeps the last counter, that of the mean of all networks
    if not is_main_process():
        return folder / "errors.json"
    classes, printed = class_errors(dataset.manifest.classes, class_counters), dataset.manifest.printed_classes
    if len(classes) <= MAX_PRINTED_CLASSES:
        console.print(class_table(class_errors(printed, class_counters)), soft_wrap=False)
    with atomic_text_writer(folder / "classes.csv") as file:
        csv.writer(file, lineterminator="\n").writerows(class_csv_rows(classes))
    confusions = {view: _write_confusions(counter, dataset, split, view, folder) for view, counter in class_counters.items()}
    view, counter = list(class_counters.items())[-1]
    if most_frequent := confusions_json(counter.confusions, printed, PRINTED_CONFUSIONS):
        console.print(confusion_table(most_frequent, view), soft_wrap=False)
    result = {
        "networks": [
            {"path": str(path), "network": model.network.name, "step": model.step}
            for path, model in zip(settings.networks, models, strict=True)
        ],
        "data": dataset.path.name,
        "split": split,
        "coefficients_searched_on": settings.search,
        "errors": errors,
        "classes": classes,
        "confusions": confusions,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    write_json(folder / "errors.json", result)
    return folder / "errors.json"


def _find_split(settings: Evaluate, training_data: str) -> tuple[Dataset, str]:
    """Return the data set and the split to evaluate on.

    Raises:
      UserError: if there is no such data set, or it lacks a split, or the labels of one.
    """
    with main_process_first("prepare data"):
        dataset = find_training_dataset(settings.data, training_data, settings.data_dir, testing=True)
    split = settings.split or dataset.evaluation_split
    for name in (split, settings.search):
        if name and name not in dataset.manifest.splits:
            raise UserError(f"{dataset.path} has no split {name!r}: choose one of {', '.join(dataset.manifest.splits)}")
        if name:
            dataset.check_labeled(name)
    if settings.search == split:
        console.print(
            f"Coefficients are searched and evaluated on the same split ({split}): the errors of the weighted mean are too low.",
            style="yellow",
        )
    return dataset, split


def _mean_coefficients(ensemble: Ensemble, settings: Evaluate, dataset: Dataset) -> dict[str, Float[np.ndarray, " models"]]:
    """Return the coefficients of each mean to evaluate, by name: each network alone, the mean, and the weighted mean."""
    num_models = len(settings.networks)
    means = {str(path): one_hot for path, one_hot in zip(settings.networks, np.eye(num_models), strict=True)}
    if num_models > 1:
        means["mean"] = np.full(num_models, 1 / num_models)
    if settings.search:
        predictions = CachedPredictions(_predict(ensemble, dataset, settings.search, "searching coefficients"))
        coefficients = search_coefficients(predictions)
        console.print(f"coefficients: {' '.join(f'{value:.3f}' for value in coefficients)}")
        means[f"weighted by {settings.search}"] = coefficients
    return means


def _count_errors(
    ensemble: Ensemble, dataset: Dataset, split: str, means: dict[str, Float[np.ndarray, " models"]], file: Path
) -> dict[str, ErrorCounter]:
    """Count the errors of each mean, by name, and write the predictions of the last mean to a CSV file, in process 0."""
    classes = dataset.manifest.classes
    images = DecodedImages(dataset, split, dataset.manifest.size)
    predictions = PredictionRows(classes, (images.record(index).name for index in range(len(images))))
    counters, last = {name: ErrorCounter(len(classes)) for name in means}, list(means.values())[-1]
    with atomic_text_writer(file) if is_main_process() else nullcontext() as text:
        writer = None if text is None else csv.writer(text, lineterminator="\n")
        if writer is not None:
            writer.writerow(predictions.header)
        for labels, probabilities in _predict(ensemble, dataset, split, "evaluating"):
            for name, coefficients in means.items():
                counters[name].add(labels, ensemble.mean(probabilities, coefficients))
            if writer is not None:
                writer.writerows(predictions.rows(labels, ensemble.mean(probabilities, last)))
    return counters


def _write_confusions(counter: ErrorCounter, dataset: Dataset, split: str, view: str, folder: Path) -> list[dict[str, Any]]:
    """Write the confusion matrix as CSV and PNG, and return the most frequent confusions."""
    classes, confusions = dataset.manifest.classes, counter.confusions
    if len(classes) <= MAX_MATRIX_CLASSES:
        with atomic_text_writer(folder / f"confusion-{view}.csv") as file:
            csv.writer(file, lineterminator="\n").writerows(confusions.csv_rows(classes))
    if len(classes) <= MAX_CLASSES:
        views = "center view" if view == "center" else f"{view} views"
        figure, title = folder / f"confusion-{view}.png", f"{dataset.path.name}, {split}: numbers of images, {views}"
        draw_confusion_matrix(confusions, dataset.manifest.printed_classes, figure, title=title)
    return confusions_json(confusions, classes, STORED_CONFUSIONS)


def _predict(ensemble: Ensemble, dataset: Dataset, split: str, description: str) -> Iterator[ModelPredictions]:
    """Yield the predictions of a split and show progress."""
    batches = -(-dataset.manifest.splits[split] // ensemble.batch_size)
    views = "center" if ensemble.views == "center" else f"{ensemble.views} views"
    return track_progress(ensemble.batches(dataset, split), f"{description}, {views} of {split}", batches, "batch")
