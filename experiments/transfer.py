"""Transfer learning (section 6 of the paper) on a small scale: pretrain on half of the classes, fine-tune on the other half.

    python experiments/transfer.py                    # synthetic images
    python experiments/transfer.py --data FOLDER      # photos in train|validation|test/<class>/*.jpg

The paper pretrains on all of ImageNet and fine-tunes on ILSVRC-2012, which lowers the top-5 error from 18.2% to 16.6%, by 1.6
points. This study pretrains a network of the quickstart's size on the first half of the classes, with all
their images, and trains on the second half with few images per class. It compares five methods, with equal numbers of epochs and
from the same seeds:

    scratch              random initial parameters
    all layers           all layers but the last copied from the pretrained network; one learning rate
    layer rates          the same with the learning rates of the config finetune: a tenth for copied layers, conv1 frozen early
    bottleneck, …        the same, pretrained with a linear bottleneck before the last layer as in fall2011, which is not copied

The seed also selects the training images of the second half. Errors are measured on the validation and test images of the second
half, which are not used for any selection. To resume after an interruption, run the same command.

The results on photos of clothes are in results/transfer.json and docs/pretraining.md. Three seeds were planned; the number was
increased to five because the intervals of the first two seeds were inconclusive. No learning rate was tuned for any method.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from paired_ci import PairedDifference, paired_difference
from rich.table import Table

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.sources.base import SPLITS, Source, SourceImage
from alexnet_jax.errors import UserError, check_at_least
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import write_json
from alexnet_jax.model.alexnet import QUICKSTART
from alexnet_jax.model.layers import Dense
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import LayerRate, StepDecay
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import TrainedModel, load

RESULT = Path(__file__).parent / "results" / "transfer.json"
SIZE = 128
RATE = 0.004

# As in the config fall2011: a linear layer with fewer units than classes before the last layer.
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
METHODS = ("scratch", *(f"{network}{rates}" for network in PRETRAINED for rates in ("all layers", "layer rates")))


@dataclass(frozen=True)
class Transfer:
    """Pretrain on half of the classes, then compare fine-tuning on the other half with training from scratch.

    Attributes:
      data: a folder of images, a prepared data set, or a name in `data_dir`.
      images: training images per class of the second half.
      seeds: random seeds of the selection of these images and of training.
      pretrain_epochs: epochs on the first half.
      epochs: epochs on the second half, the same for all methods.
      data_dir: folder of prepared data sets.
      runs_dir: folder of run folders.
      to: JSON file for the result, rewritten after every seed.
    """

    data: str = "synthetic"
    images: int = 30
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    pretrain_epochs: int = 20
    epochs: int = 80
    data_dir: Path = Path("data")
    runs_dir: Path = Path("runs")
    to: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, images=1, seeds=0, pretrain_epochs=1, epochs=1)


class ClassSubset(Source):
    """Data source of the images of some classes of a prepared data set.

    Args:
      dataset: prepared data set.
      classes: labels of the classes.
      images: training images per class, selected at random; None uses all.
      seed: seed of the selection.
    """

    size, raw = SIZE, True

    def __init__(self, dataset: Dataset, classes: range, images: int | None = None, seed: int = 0):
        self.description = f"classes {classes[0]} to {classes[-1]} of {dataset.path.name}"
        self.classes = [dataset.manifest.classes[label] for label in classes]
        self._labels = {old_label: label for label, old_label in enumerate(classes)}
        splits = [split for split in SPLITS if split in dataset.manifest.splits and split not in dataset.manifest.unlabeled]
        self._images = {split: DecodedImages(dataset, split, SIZE) for split in splits}
        self._indices = {split: self._indices_by_class(decoded) for split, decoded in self._images.items()}
        if images is not None:
            rng = np.random.default_rng(seed)
            selected = [rng.permutation(indices)[:images] for indices in self._indices["train"]]
            if too_few := [name for name, indices in zip(self.classes, selected, strict=True) if len(indices) < images]:
                raise UserError(
                    f"{dataset.path} has fewer than {images} training images of {too_few[0]}: pass a smaller --images"
                )
            self._indices["train"] = selected
        self._order = {split: np.concatenate(indices) for split, indices in self._indices.items()}
        self.num_images = {split: len(order) for split, order in self._order.items()}
        self._fingerprint = f"{dataset.manifest.plan} {self.classes} {images} {seed}"

    def _indices_by_class(self, images: DecodedImages) -> list[np.ndarray]:
        labels = np.array([images.record(index).label for index in range(len(images))])
        return [np.flatnonzero(labels == label) for label in self._labels]

    def read(self, split: str, index: int) -> SourceImage:
        images = self._images[split]
        record = images.record(int(self._order[split][index]))
        return SourceImage(record.name, self._labels[record.label], images.decode(record).copy())

    def fingerprint(self) -> str:
        return self._fingerprint


def compare(settings: Transfer) -> dict[str, Any]:
    """Train the networks that are not trained yet, and return the comparison, which is also written to `settings.to`."""
    dataset = find_dataset(settings.data, settings.data, settings.data_dir)
    labels = range(len(dataset.manifest.classes))
    first, second = labels[: len(labels) // 2], labels[len(labels) // 2 :]
    folder = settings.data_dir / f"{dataset.path.name}-halves"
    pretraining_data = prepare(ClassSubset(dataset, first), folder / "first")
    result: dict[str, Any] = {}
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    pretrained_error: dict[str, list[float]] = {network.name: [] for network in PRETRAINED.values()}
    for seed in settings.seeds:
        training_data = prepare(
            ClassSubset(dataset, second, settings.images, seed), folder / f"second-{settings.images}-seed{seed}"
        )
        runs = {name: pretrain(network, pretraining_data, seed, settings) for name, network in PRETRAINED.items()}
        for name, run in runs.items():
            finished = RunDirectory(run).result
            assert finished is not None
            pretrained_error[PRETRAINED[name].name].append(finished["top1_error"])
        for method, config in fine_tuning_configs(runs, seed, settings):
            model = load(config.init_from) if config.init_from else None
            run = train_to_end(config, options(training_data, settings), model)
            errors[method].append(held_out_error(run, training_data))
        result = {
            "data": dataset.path.name,
            "pretrained_on": {"classes": pretraining_data.manifest.classes, "images": pretraining_data.manifest.splits["train"]},
            "trained_on": {"classes": training_data.manifest.classes, "images": training_data.manifest.splits["train"]},
            "tested_on": sum(images for split, images in training_data.manifest.splits.items() if split != "train"),
            "epochs": {"pretraining": settings.pretrain_epochs, "training": settings.epochs},
            "seeds": list(settings.seeds[: len(errors["scratch"])]),
            "pretrained_error": pretrained_error,
            "test_error": errors,
            "better_than_scratch_by": {
                method: asdict(paired_difference(errors["scratch"], errors[method])) for method in METHODS[1:]
            },
        }
        write_json(settings.to, result)
    return result


def pretrain(network: Network, dataset: Dataset, seed: int, settings: Transfer) -> Path:
    """Pretrain a network and return its run folder."""
    config = base_config(network, seed, settings.pretrain_epochs)
    return train_to_end(config, options(dataset, settings))


def fine_tuning_configs(runs: dict[str, Path], seed: int, settings: Transfer) -> Iterator[tuple[str, TrainConfig]]:
    """Yield each method and its config.

    Args:
      runs: run folders of the pretrained networks, by their names in `PRETRAINED`.
      seed: seed of training.
      settings: settings of the study.
    """
    scratch = base_config(QUICKSTART, seed, settings.epochs)
    decay_epoch, freeze_epoch = three_quarters(settings.epochs), max(1, settings.epochs // 8)
    layer_rates = (
        LayerRate("conv1", after=0, weights=RATE / 100),
        LayerRate("conv1", after=freeze_epoch, weights=0.0, biases=0.0),
        LayerRate("fc8", after=0, weights=RATE, biases=RATE),
        LayerRate("fc8", after=decay_epoch, weights=RATE / 10, biases=RATE / 10),
    )
    yield "scratch", scratch
    for name, run in runs.items():
        all_layers = replace(scratch, init_from=run)
        yield f"{name}all layers", all_layers
        yield f"{name}layer rates", replace(all_layers, learning_rate=RATE / 10, layer_rates=layer_rates)


def base_config(network: Network, seed: int, epochs: int) -> TrainConfig:
    """Return a config whose learning rate is divided by 10 after three quarters of the epochs."""
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
    """Return three quarters of the epochs, at least 1."""
    return max(1, 3 * epochs // 4)


def options(dataset: Dataset, settings: Transfer) -> Options:
    """Return the training options for one device."""
    return Options(data=str(dataset.path), data_dir=settings.data_dir, runs_dir=settings.runs_dir, placement="single", devices=1)


def train_to_end(config: TrainConfig, options: Options, model: TrainedModel | None = None) -> Path:
    """Train and return the run folder, or exit if training is stopped by a signal."""
    with StopOnSignal() as should_stop:
        result = train("transfer", config, options, model, should_stop=should_stop)
    if not result.finished:
        sys.exit(0)
    return result.run


def held_out_error(run: Path, dataset: Dataset) -> float:
    """Return the top-1 error of the center view on all images that are not training images."""
    predictor = Predictor(load(run))
    counters = [predictor.count_errors(dataset, split) for split in dataset.manifest.splits if split != "train"]
    return float(sum(counter.top1_errors.sum() for counter in counters) / sum(counter.images.sum() for counter in counters))


def table(result: dict[str, Any]) -> Table:
    """Return a table of the test errors, one column per seed."""
    rows = Table("method", *(f"seed {seed}" for seed in result["seeds"]), "improvement over scratch, points (95% interval)")
    for method, errors in result["test_error"].items():
        gain = "" if method == "scratch" else str(PairedDifference(**result["better_than_scratch_by"][method]))
        rows.add_row(method, *(f"{error:.1%}" for error in errors), gain)
    return rows


def main() -> None:
    settings = tyro.cli(Transfer)
    configure_process()
    result = compare(settings)
    console.print(table(result))
    print(json.dumps(result))


if __name__ == "__main__":
    with exit_on_error():
        main()
