"""What pre-training is worth (section 6), in small: the classes of a data set in two halves, one of them with few pictures.

    python experiments/transfer.py                    # the pictures drawn by code
    python experiments/transfer.py --data FOLDER      # photos in train|validation|test/<class>/*.jpg

The paper: pre-trained on the whole ImageNet and fine-tuned on ILSVRC-2012, 16.6 % top-5 error instead of 18.2 %, or 1.6 points,
with images that take months to train on. Here a network of the quickstart's size is trained on the first half of the classes,
with all their pictures, and goes on with the second, of which it gets few. Five ways, with equal epochs, from the same seeds:

    scratch              random weights
    all layers           begins with all layers but the last; one rate for all
    layer rates          the same with the rates of finetune.py: a tenth for what is carried over, conv1 soon frozen
    bottleneck, …        both, pre-trained with a linear bottleneck before the classes as in fall2011.py, which is left behind

A seed decides which few pictures there are, too. Errors are on the second half's validation and test images: nothing is chosen
by them. Broken off, the same command goes on.

TrainMetrics on photos of clothes, 150 after 1,471 of others (results/transfer.json, five seeds, about 15 minutes of a CPU): 45.9 %
error from scratch, 38.2 % with all layers, 7.8 points less (95 %: 1.3 to 14.2). With layer rates, with the bottleneck, or with
both, the mean is better than scratch, too, but the interval holds 0; that the rates are too small for 320 steps is a guess.
Three seeds were planned; after two, whose intervals said nothing, they became five. No rate was searched for any of the ways.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.sources.base import SPLITS, Picture, Source
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.paired_ci import PairedDifference, paired_difference
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.model.alexnet import QUICKSTART
from alexnet_jax.model.layers import Dense
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.loop import Options, train
from alexnet_jax.training.schedule import LayerRate, StepDecay
from alexnet_jax.weights.trained_model import load

RESULT = Path(__file__).parent / "results" / "transfer.json"
SIZE = 128
RATE = 0.004

# As in fall2011.py: before the classes, fewer units than there are, without a nonlinearity.
BOTTLENECK = replace(
    QUICKSTART,
    name="bottleneck",
    layers=(
        *QUICKSTART.layers[:-1],
        Dense(64, name="bottleneck", reads="all", std=0.09),
        Dense(10, name="fc8", reads="all", std=0.05),
    ),
)
PRETRAINED = {"": QUICKSTART, "bottleneck, ": BOTTLENECK}
WAYS = ("scratch", *(f"{network}{rates}" for network in PRETRAINED for rates in ("all layers", "layer rates")))


@dataclass(frozen=True)
class Transfer:
    """Pre-train on half of the classes, fine-tune on the others, and train those from scratch.

    Attributes:
      data: a folder of images, a prepared folder, or a name in `data_dir`.
      images: training images of each class of the second half.
      seeds: of which images these are, and of training.
      pretrain_epochs: on the first half.
      epochs: on the second half, whatever the training begins with.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      to: the result, written anew after every seed.
    """

    data: str = "synthetic"
    images: int = 30
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    pretrain_epochs: int = 20
    epochs: int = 80
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    to: Path = RESULT


class Part(Source):
    """Some classes of a prepared data set.

    Args:
      dataset: of which they are.
      classes: their numbers.
      images: training images of each class, drawn at random; None is all.
      seed: of the draw.
    """

    size, raw = SIZE, True

    def __init__(self, dataset: Dataset, classes: range, images: int | None = None, seed: int = 0):
        self.description = f"classes {classes[0]} to {classes[-1]} of {dataset.path.name}"
        self.classes = [dataset.manifest.classes[number] for number in classes]
        self._labels = {number: label for label, number in enumerate(classes)}
        self._records = {split: DecodedImages(dataset, split, SIZE) for split in SPLITS if split in dataset.manifest.splits}
        self._places = {split: self._of_classes(records) for split, records in self._records.items()}
        if images is not None:
            rng = np.random.default_rng(seed)
            few = [rng.permutation(places)[:images] for places in self._places["train"]]
            if short := [name for name, places in zip(self.classes, few, strict=True) if len(places) < images]:
                raise UserError(f"{dataset.path} has fewer than {images} training images of {short[0]}: choose fewer --images")
            self._places["train"] = few
        self._order = {split: np.concatenate(places) for split, places in self._places.items()}
        self.images = {split: len(order) for split, order in self._order.items()}
        self._what = f"{dataset.manifest.plan} {self.classes} {images} {seed}"

    def _of_classes(self, records: DecodedImages) -> list[np.ndarray]:
        labels = np.array([records.record(place).label for place in range(len(records))])
        return [np.flatnonzero(labels == number) for number in self._labels]

    def read(self, split: str, index: int) -> Picture:
        records = self._records[split]
        record = records.record(int(self._order[split][index]))
        return Picture(record.name, self._labels[record.label], records.pixels(record).copy())

    def fingerprint(self) -> str:
        return self._what


def transferred(settings: Transfer) -> dict[str, Any]:
    """Trains what has not been trained, tests it and writes the result."""
    whole = find_dataset(settings.data, settings.data, settings.data_dir)
    numbers = range(len(whole.manifest.classes))
    first, second = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    folder = settings.data_dir / f"{whole.path.name}-halves"
    much = prepare(Part(whole, first), folder / "first")
    result: dict[str, Any] = {}
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    before: dict[str, list[float]] = {network.name: [] for network in PRETRAINED.values()}
    for seed in settings.seeds:
        few = prepare(Part(whole, second, settings.images, seed), folder / f"second-{settings.images}-seed{seed}")
        begun = {name: pretrained(network, much, seed, settings) for name, network in PRETRAINED.items()}
        for name, run in begun.items():
            before[PRETRAINED[name].name].append(json.loads((run / "result.json").read_text())["top1_error"])
        for way, experiment in fine_tunings(begun, seed, settings):
            run = finished(train("transfer", experiment, options(few, settings)))
            errors[way].append(tested(run, few))
        result = {
            "data": whole.path.name,
            "pretrained_on": {"classes": much.manifest.classes, "images": much.manifest.splits["train"]},
            "trained_on": {"classes": few.manifest.classes, "images": few.manifest.splits["train"]},
            "tested_on": sum(images for split, images in few.manifest.splits.items() if split != "train"),
            "epochs": {"pretraining": settings.pretrain_epochs, "training": settings.epochs},
            "seeds": list(settings.seeds[: len(errors["scratch"])]),
            "pretrained_error": before,
            "test_error": errors,
            "better_than_scratch_by": {way: asdict(paired_difference(errors["scratch"], errors[way])) for way in WAYS[1:]},
        }
        settings.to.parent.mkdir(parents=True, exist_ok=True)
        settings.to.write_text(json.dumps(result, indent=1) + "\n")
    return result


def pretrained(network: Network, dataset: Dataset, seed: int, settings: Transfer) -> Path:
    experiment = base(network, seed, settings.pretrain_epochs)
    return finished(train("transfer", experiment, options(dataset, settings)))


def fine_tunings(begun: dict[str, Path], seed: int, settings: Transfer) -> Iterator[tuple[str, TrainConfig]]:
    """The ways, each with its experiment."""
    scratch = base(QUICKSTART, seed, settings.epochs)
    cut, frozen = three_quarters(settings.epochs), max(1, settings.epochs // 8)
    own = (
        LayerRate("conv1", after=0, weights=RATE / 100),
        LayerRate("conv1", after=frozen, weights=0.0, biases=0.0),
        LayerRate("fc8", after=0, weights=RATE, biases=RATE),
        LayerRate("fc8", after=cut, weights=RATE / 10, biases=RATE / 10),
    )
    yield "scratch", scratch
    for name, run in begun.items():
        all_layers = replace(scratch, init_from=run)
        yield f"{name}all layers", all_layers
        yield f"{name}layer rates", replace(all_layers, learning_rate=RATE / 10, layer_rates=own)


def base(network: Network, seed: int, epochs: int) -> TrainConfig:
    return TrainConfig(
        network=network,
        epochs=epochs,
        batch_size=32,
        learning_rate=RATE,
        schedule=StepDecay((three_quarters(epochs),)),
        augmentation=Augmentation(image_size=SIZE),
        seed=seed,
    )


def three_quarters(epochs: int) -> int:
    return max(1, 3 * epochs // 4)


def options(dataset: Dataset, settings: Transfer) -> Options:
    return Options(data=str(dataset.path), data_dir=settings.data_dir, runs_dir=settings.runs_dir, placement="single", devices=1)


def finished(run: Path) -> Path:
    if not (run / "result.json").is_file():
        sys.exit(0)  # asked to stop
    return run


def tested(run: Path, dataset: Dataset) -> float:
    """Top-1 error of the center view on all images that were not trained on."""
    predictor = Predictor(load(run))
    splits = [predictor.split(dataset, split) for split in dataset.manifest.splits if split != "train"]
    return float(np.concatenate([split.rows.argmax(1) != split.labels for split in splits]).mean())


def table(result: dict[str, Any]) -> Table:
    """The test errors, a column for each seed."""
    rows = Table("", *(f"seed {seed}" for seed in result["seeds"]), "better than scratch by, points (95 %)")
    for way, errors in result["test_error"].items():
        gain = "" if way == "scratch" else str(PairedDifference(**result["better_than_scratch_by"][way]))
        rows.add_row(way, *(f"{error:.1%}" for error in errors), gain)
    return rows


if __name__ == "__main__":
    settings = tyro.cli(Transfer)
    enable_compilation_cache()
    result = transferred(settings)
    console.print(table(result))
    print(json.dumps(result))
