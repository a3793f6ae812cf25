"""`evaluate`: errors of trained networks on a split, of each and of their mean.

In the folder it writes to:

errors.json             all errors: of each network, of their mean, by views; and of each class
classes.csv             a row for each class: images, top-1 error by views
predictions-VIEWS.csv   a row for each image: name, class, the five most probable classes and how probable they are
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jaxtyping import Float

from alexnet_jax.console import console, track_progress
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.coefficients import CachedPredictions, search
from alexnet_jax.evaluation.ensemble import Ensemble, ModelPredictions
from alexnet_jax.evaluation.metrics import ErrorCounter
from alexnet_jax.evaluation.predictor import Views
from alexnet_jax.evaluation.tables import PredictionRows, class_rows, class_table, format_errors, of_classes, rounded
from alexnet_jax.files import atomic_text_writer
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.training.checkpoint import versions
from alexnet_jax.weights.trained_model import load

CIFAR_SIZE = 32
TOLD_CLASSES = 20
"""Up to so many classes are shown on the terminal; the files have them all."""


@dataclass(frozen=True)
class Evaluate:
    """Measure the errors of a trained network, or of several and of the mean of their predictions.

    Attributes:
      networks: run folders, for their latest checkpoints, or checkpoints, RUN/checkpoints/STEP. Several are an ensemble.
      data: a folder of images, a prepared folder, or a name in `data_dir`; None is what the first network was trained on.
      data_dir: folder of prepared data sets.
      split: of the data; None is validation, or test if there is none.
      views: parts of an image over which probabilities are averaged: its center, the ten of the paper, the nine of the original
        code for CIFAR. None is center and ten, or, for images of 32 pixels, center and nine.
      best: of a run, take the checkpoint with the smallest validation error.
      search: split on which the coefficients of a weighted mean are searched, as the original code did on validation images.
      to: folder to write to; None is `evaluation/DATA-SPLIT` in the first run, or `ensemble/DATA-SPLIT` for several networks.
      batch_size: images at a time.
    """

    networks: tyro.conf.Positional[tuple[Path, ...]]
    data: str | None = None
    data_dir: Path = Path("data")
    split: str | None = None
    views: tuple[Views, ...] | None = None
    best: bool = False
    search: str | None = None
    to: Path | None = None
    batch_size: int = 128


def run(arguments: list[str]) -> None:
    """Measure the errors and print the file they are written to."""
    enable_compilation_cache()
    print(evaluate(tyro.cli(Evaluate, prog="alexnet-jax evaluate", args=arguments)))


def evaluate(settings: Evaluate) -> Path:
    """Measures errors, tells them, and writes them down.

    Returns:
      The file with all of them, errors.json.

    Raises:
      UserError: for networks, data or a split that cannot be used or do not belong together.
    """
    if not settings.networks:
        raise UserError("name a run or a checkpoint: python -m alexnet_jax evaluate RUN")
    if settings.search and len(settings.networks) == 1:
        raise UserError("--search is for the mean of several networks: name more, or leave it out")
    if settings.batch_size < 1:
        raise UserError(f"{settings.batch_size} images cannot be a batch: choose a --batch-size of 1 or more")
    networks = [load(path, best=settings.best) for path in settings.networks]
    dataset = find_training_dataset(settings.data, networks[0].config["data"]["path"], settings.data_dir)
    split = settings.split or dataset.evaluation_split
    for asked in (split, settings.search):
        if asked and asked not in dataset.manifest.splits:
            raise UserError(f"{dataset.path} has no split {asked!r}; it has: {', '.join(dataset.manifest.splits)}")
    if settings.search == split:
        console.print(f"coefficients fit the images they are searched on: their errors on {split} are too small", style="yellow")
    views: tuple[Views, ...] = settings.views or ("center", "nine" if dataset.manifest.size == CIFAR_SIZE else "ten")
    kind = "evaluation" if len(networks) == 1 else "ensemble"
    folder = settings.to or networks[0].output_dir / kind / f"{dataset.path.name}-{split}"
    console.print(f"{len(networks)} network(s) on {dataset.path}, {split}", markup=False)

    errors: list[dict[str, Any]] = []
    of_all: dict[str, ErrorCounter] = {}
    for seen in dict.fromkeys(views):
        ensemble = Ensemble(networks, views=seen, batch_size=settings.batch_size)
        ensemble.check(dataset)
        means = _means(ensemble, settings, dataset)
        for name, tally in _measured(ensemble, dataset, split, means, folder / f"predictions-{seen}.csv").items():
            errors.append({"of": name, "views": seen, **rounded(tally), "coefficients": np.round(means[name], 6).tolist()})
            console.print(format_errors(name, seen, errors[-1]), markup=False)
            of_all[seen] = tally  # in the end the last, of all networks together
    classes = of_classes(dataset.manifest.classes, of_all)
    if len(classes) <= TOLD_CLASSES:
        console.print(class_table(classes), soft_wrap=False)
    with atomic_text_writer(folder / "classes.csv") as file:
        csv.writer(file, lineterminator="\n").writerows(class_rows(classes))
    result = {
        "networks": [
            {"path": str(path), "network": of.network.name, "step": of.step}
            for path, of in zip(settings.networks, networks, strict=True)
        ],
        "data": dataset.path.name,
        "split": split,
        "coefficients_searched_on": settings.search,
        "errors": errors,
        "classes": classes,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    with atomic_text_writer(folder / "errors.json") as file:
        file.write(json.dumps(result, indent=1) + "\n")
    return folder / "errors.json"


def _means(ensemble: Ensemble, settings: Evaluate, dataset: Dataset) -> dict[str, Float[np.ndarray, " networks"]]:
    """Coefficients of what is to be measured, by its name: each network alone, their mean, their weighted mean."""
    several = len(settings.networks)
    means = {str(path): alone for path, alone in zip(settings.networks, np.eye(several), strict=True)}
    if several > 1:
        means["mean"] = np.full(several, 1 / several)
    if settings.search:
        found = search(CachedPredictions(_tracked(ensemble, dataset, settings.search, "searching coefficients")))
        console.print(f"coefficients: {' '.join(f'{value:.3f}' for value in found)}")
        means[f"weighted by {settings.search}"] = found
    return means


def _measured(
    ensemble: Ensemble, dataset: Dataset, split: str, means: dict[str, Float[np.ndarray, " networks"]], file: Path
) -> dict[str, ErrorCounter]:
    """The errors of each mean. The predictions of the last go to `file`."""
    classes = dataset.manifest.classes
    images = DecodedImages(dataset, split, dataset.manifest.size)
    rows = PredictionRows(classes, (images.record(place).name for place in range(len(images))))
    tallies = {name: ErrorCounter(len(classes)) for name in means}
    with atomic_text_writer(file) as text:
        write = csv.writer(text, lineterminator="\n")
        write.writerow(rows.header)
        for labels, probabilities in _tracked(ensemble, dataset, split, "testing"):
            mean = probabilities[0]
            for name, coefficients in means.items():
                mean = np.tensordot(coefficients, probabilities, axes=1)
                tallies[name].add(labels, mean)
            write.writerows(rows.of(labels, mean))
    return tallies


def _tracked(ensemble: Ensemble, dataset: Dataset, split: str, doing: str) -> Iterator[ModelPredictions]:
    batches = -(-dataset.manifest.splits[split] // ensemble.batch_size)
    seen = "center" if ensemble.views == "center" else f"{ensemble.views} views"
    return track_progress(ensemble.batches(dataset, split), f"{doing}, {seen} of {split}", batches, "batches")
