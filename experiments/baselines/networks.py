"""Networks trained from scratch on the same images as the baselines.

    python experiments/baselines/networks.py --data caltech101 --images 30 --config quickstart

For each random split, the prepared images are copied to a data set of their own, and the config is trained on it with the seed
of the split. After an interruption, the same command resumes. Errors are those of ten views, as in the paper.

Several learning rates and numbers of epochs may be given. Then those with the smallest error on held-out training images of the
first split are used: first the rate, with the first number of epochs, then the number of epochs, with that rate.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro
from image_pool import ImagePool, RandomSplitSource, open_source, splits_of
from study import ErrorLists, Study, describe, write_result

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.configs import load_config
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset, select_classes
from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.records import Dataset
from alexnet_jax.data.sources.base import Source
from alexnet_jax.errors import DivergedError, UserError, check_number
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import ReduceOnPlateau
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class Networks:
    """Train a network on each split.

    Attributes:
      study: data and splits.
      config: name of the config, or a Python file.
      epochs: numbers of epochs to choose from, to which the config's schedule is rescaled; empty uses that of the config.
      rates: learning rates to choose from; empty uses that of the config.
      held_out: training images per class that are held out for the choice.
    """

    study: tyro.conf.OmitArgPrefixes[Study]
    config: str = "quickstart"
    epochs: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    held_out: int = 5


class Choice(NamedTuple):
    """Learning rate and number of epochs, with their error on held-out training images.

    Attributes:
      learning_rate: initial learning rate.
      epochs: number of epochs.
      error: top-1 error of the center view; 1 if training diverged.
    """

    learning_rate: float
    epochs: int
    error: float


def choose(settings: Networks, config: TrainConfig, source: Source) -> tuple[TrainConfig, list[Choice]]:
    """Return the config with the rate and the number of epochs that are used, and the choices if there are several."""
    rates, epochs = settings.rates or (config.learning_rate,), settings.epochs or (config.epochs,)

    def candidate(rate: float, epochs: int) -> TrainConfig:
        # Without validation images, epochs are evaluated on the test images, which must not be used, and takes time.
        every = 1 if isinstance(config.schedule, ReduceOnPlateau) else epochs
        return replace(config.with_epochs(epochs), learning_rate=rate, evaluate_every=every)

    if len(rates) == len(epochs) == 1:
        return candidate(rates[0], epochs[0]), []
    check_number("--held-out", settings.held_out, at_least=1, below=settings.study.images)
    dataset = training_data(settings, source, settings.study.seeds[0], settings.held_out)
    if dataset.evaluation_split == "test":
        raise UserError(f"{dataset.path} has no validation images: pass --images, or one rate and one number of epochs")
    choices: list[Choice] = []

    def measure(rate: float, epochs: int) -> None:
        try:
            run = train_on(dataset, settings, candidate(rate, epochs))
            error = _result(run)["top1_error"]
        except DivergedError:
            error = 1.0
        choices.append(Choice(rate, epochs, error))
        console.print(f"rate {rate:g}, {epochs} epochs: error {error:.1%} on held-out training images")

    for rate in rates:
        measure(rate, epochs[0])
    rate = min(choices, key=lambda choice: choice.error).learning_rate
    for count in epochs[1:]:
        measure(rate, count)
    best = min(choices, key=lambda choice: choice.error)
    return candidate(best.learning_rate, best.epochs), choices


def training_data(settings: Networks, source: Source, seed: int, held_out: int = 0) -> Dataset:
    """Return the data set of a split, which is prepared if need be; see `RandomSplitSource` for the arguments."""
    study = settings.study
    if study.images is None:
        dataset = find_dataset(study.data, study.data, study.data_dir)
        return select_classes(dataset, study.classes, study.data_dir) if study.classes else dataset
    classes = f"-{len(source.classes)}-classes" if study.classes else ""
    name = f"{Path(study.data).name}{classes}-{study.images}-seed{seed}" + (f"-held-out{held_out}" if held_out else "")
    return prepare(RandomSplitSource(source, study.images, seed, held_out), study.data_dir / name)


def train_on(dataset: Dataset, settings: Networks, config: TrainConfig) -> Path:
    """Train a network and return its run folder; exit if a signal has stopped the training."""
    options = Options(data=str(dataset.path), data_dir=settings.study.data_dir, runs_dir=settings.study.runs_dir)
    with StopOnSignal() as should_stop:
        trained = train(Path(settings.config).stem, config, options, should_stop=should_stop)
    if not trained.finished:
        sys.exit(0)
    return trained.run


def _result(run: Path) -> dict[str, Any]:
    finished = RunDirectory(run).result
    assert finished is not None
    return finished


def evaluate(settings: Networks) -> dict[str, Any]:
    """Train the networks that are not trained yet, and return their errors, which are also written after every split."""
    study = settings.study
    if study.whole:
        raise UserError("networks are trained on prepared squares: leave out --whole")
    source = open_source(study.data, study.data_dir, classes=study.classes)
    pool = ImagePool(source)
    splits = splits_of(pool, study.images, study.seeds)
    config, choices = choose(settings, load_config(settings.config), source)
    errors, seconds, training_errors = ErrorLists(), [], []
    result: dict[str, Any] = {}
    for seed in study.seeds[: len(splits)]:
        dataset = training_data(settings, source, seed)
        run = train_on(dataset, settings, replace(config, seed=seed))
        errors.add(Predictor(load(run), views="ten").count_errors(dataset, "test"))
        seconds.append(round(_result(run)["seconds"], 1))
        training_errors.append([line["training_error"] for line in RunDirectory(run).log_lines() if "epoch" in line])
        result = {
            "method": config.network.name,
            **describe(study, pool, splits[: len(seconds)]),
            **asdict(errors),
            "epochs": config.epochs,
            "learning_rate": config.learning_rate,
            "choices": [choice._asdict() for choice in choices],
            "training_error_by_epoch": training_errors,
            "views": "ten",
            "seconds": {"train": seconds},
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "versions": {"jax": jax.__version__},
        }
        write_result(result, study.to)
        console.print(f"{config.network.name}, split {len(seconds)}: {errors}")
    return result


if __name__ == "__main__":
    with exit_on_error():
        configure_process()
        print(json.dumps(evaluate(tyro.cli(Networks))))
