"""Networks trained from scratch on the same images as the baselines.

    python experiments/baselines/networks.py --data caltech101 --images 30 --config quickstart

For each random split, the prepared images are copied to a data set of their own, and the config is trained on it with the seed
of the split. After an interruption, the same command resumes. Errors are those of ten views, as in the paper.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from image_pool import ImagePool, RandomSplitSource, open_source, splits_of
from study import ErrorLists, Study, describe, write_result

from alexnet_jax.cli.process import configure_process
from alexnet_jax.configs import load_config
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset, select_classes
from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.records import Dataset
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.metrics import ErrorCounter
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.training.config import Options
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load


@dataclass(frozen=True)
class Networks:
    """Train a network on each split.

    Attributes:
      study: data and splits.
      config: name of the config, or a Python file.
      epochs: number of epochs, to which the config's schedule is rescaled; None uses those of the config.
    """

    study: tyro.conf.OmitArgPrefixes[Study]
    config: str = "quickstart"
    epochs: int | None = None


def evaluate(settings: Networks) -> dict[str, Any]:
    """Train the networks that are not trained yet, and return their errors, which are also written after every split."""
    study = settings.study
    if study.whole:
        raise UserError("networks are trained on prepared squares: leave out --whole")
    source = open_source(study.data, study.data_dir, classes=study.classes)
    pool = ImagePool(source)
    splits = splits_of(pool, study.images, study.seeds)
    config = load_config(settings.config)
    config = config.with_epochs(settings.epochs) if settings.epochs else config
    errors, seconds = ErrorLists(), []
    result: dict[str, Any] = {}
    for seed in study.seeds[: len(splits)]:
        if study.images is None:
            dataset = find_dataset(study.data, study.data, study.data_dir)
            dataset = select_classes(dataset, study.classes, study.data_dir) if study.classes else dataset
        else:
            classes = f"-{len(pool.classes)}-classes" if study.classes else ""
            name = f"{Path(study.data).name}{classes}-{study.images}-seed{seed}"
            dataset = prepare(RandomSplitSource(source, study.images, seed), study.data_dir / name)
        options = Options(data=str(dataset.path), data_dir=study.data_dir, runs_dir=study.runs_dir)
        with StopOnSignal() as should_stop:
            trained = train(Path(settings.config).stem, replace(config, seed=seed), options, should_stop=should_stop)
        if not trained.finished:
            sys.exit(0)
        errors.add(errors_on_test_images(trained.run, dataset))
        finished = RunDirectory(trained.run).result
        assert finished is not None
        seconds.append(round(finished["seconds"], 1))
        result = {
            "method": config.network.name,
            **describe(study, pool, splits[: len(seconds)]),
            **asdict(errors),
            "epochs": config.epochs,
            "views": "ten",
            "seconds": {"train": seconds},
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "versions": {"jax": jax.__version__},
        }
        write_result(result, study.to)
        console.print(f"{config.network.name}, split {len(seconds)}: {errors}")
    return result


def errors_on_test_images(run: Path, dataset: Dataset) -> ErrorCounter:
    """Return the errors of a trained network on the test images, averaged over ten views."""
    model = load(run)
    counter = ErrorCounter(len(model.classes))
    for labels, probabilities in Predictor(model, views="ten").batches(dataset, "test"):
        counter.add(labels, probabilities)
    return counter


if __name__ == "__main__":
    configure_process()
    try:
        print(json.dumps(evaluate(tyro.cli(Networks))))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
