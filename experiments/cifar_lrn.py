"""Effect of response normalization on the test error of the four-layer network on CIFAR-10.

    alexnet-jax prepare --from cifar-10-binary.tar.gz --to data/cifar10
    python experiments/cifar_lrn.py

The paper reports a test error of 13% without response normalization and 11% with it (section 3.3). Those two networks also differ
in other ways and were trained for 160 and 520 epochs. This study trains the config cifar_four_layers with and without its two
normalization layers, with everything else equal and from the same seeds. The test error is averaged over nine views, as in the
original code. To resume after an interruption, run the same command. Results: results/cifar_lrn.json.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from paired_ci import PairedDifference, paired_difference
from rich.table import Table

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.configs import load_config
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.errors import check_at_least
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.files import write_json
from alexnet_jax.model.cifar import FOUR_LAYERS
from alexnet_jax.training.config import Options
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load

RESULT = Path(__file__).parent / "results" / "cifar_lrn.json"


@dataclass(frozen=True)
class Comparison:
    """Train the four-layer network with and without response normalization.

    Attributes:
      data: prepared CIFAR-10 data set.
      seeds: random seeds; both networks are trained once per seed.
      epochs: epochs per run, to which the schedule is rescaled; None uses the number in the config cifar_four_layers.
      runs_dir: folder of run folders.
      to: JSON file for the result, rewritten after every run.
    """

    data: str = "cifar10"
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int | None = None
    runs_dir: Path = Path("runs")
    to: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, seeds=0, epochs=1)


def compare(settings: Comparison) -> dict[str, Any]:
    """Train the networks that are not trained yet, and return the comparison, which is also written to `settings.to`."""
    base = load_config("cifar_four_layers")
    base = base.with_epochs(settings.epochs or base.epochs)
    networks = {"with": base.network, "without": FOUR_LAYERS}
    dataset = find_dataset(settings.data, "cifar10", Path("data"))
    errors: dict[str, list[float]] = {name: [] for name in networks}
    curves: dict[str, list[list[float]]] = {name: [] for name in networks}
    result: dict[str, Any] = {}
    for seed in settings.seeds:
        for name, network in networks.items():
            config = replace(base, network=network, seed=seed)
            options = Options(data=settings.data, runs_dir=settings.runs_dir, placement="single", devices=1)
            with StopOnSignal() as should_stop:
                trained = train(network.name, config, options, should_stop=should_stop)
            if not trained.finished:
                sys.exit(0)  # stopped by a signal
            errors[name].append(Predictor(load(trained.run), views="nine").count_errors(dataset, "test").metrics.top1_error)
            curves[name].append([line["top1_error"] for line in RunDirectory(trained.run).log_lines() if "epoch" in line])
            pairs = min(map(len, errors.values()))
            result = {
                "data": str(dataset.manifest.source),
                "epochs": base.epochs,
                "milestones": list(getattr(base.schedule, "milestones", ())),
                "seeds": list(settings.seeds[:pairs]),
                "test_error": errors,
                "difference": asdict(paired_difference(errors["without"], errors["with"])) if pairs else None,
                "center_view_error_by_epoch": curves,
            }
            write_json(settings.to, result)
    return result


def table(result: dict[str, Any]) -> Table:
    """Return a table of the test errors, one row per seed."""
    rows = Table("seed", "without normalization", "with normalization")
    for seed, *pair in zip(result["seeds"], result["test_error"]["without"], result["test_error"]["with"], strict=False):
        rows.add_row(str(seed), *(f"{error:.2%}" for error in pair))
    if difference := result["difference"]:
        rows.add_row("without minus with, points", str(PairedDifference(**difference)))
    return rows


def main() -> None:
    settings = tyro.cli(Comparison)
    configure_process()
    result = compare(settings)
    console.print(table(result))
    print(json.dumps(result))


if __name__ == "__main__":
    with exit_on_error():
        main()
