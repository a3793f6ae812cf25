"""What response normalization does for the four-layer network on CIFAR-10 (section 3.3: 13 % test error without, 11 % with it).

    python -m alexnet_jax prepare --from cifar-10-binary.tar.gz --to data/cifar10
    python experiments/cifar_lrn.py

The network of cifar_four_layers.py with and without its two normalizations, everything else equal, from the same seeds; test
error of nine views, as in the original code. The 13 % and the 11 % that were published are of two networks that differ in more
than that, after 160 and 520 epochs. Broken off, the same command goes on. What came out: results/cifar_lrn.json.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from alexnet_jax.configs import load_config
from alexnet_jax.console import console
from alexnet_jax.data.find import find_dataset
from alexnet_jax.evaluation.paired_ci import PairedDifference, paired_difference
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.model.cifar import FOUR_LAYERS
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.training.loop import Options, train
from alexnet_jax.weights.trained_model import load

RESULT = Path(__file__).parent / "results" / "cifar_lrn.json"


@dataclass(frozen=True)
class Comparison:
    """Train the four-layer network with and without response normalization.

    Attributes:
      data: CIFAR-10, prepared.
      seeds: of the pairs of trainings.
      epochs: of each; None is what cifar_four_layers.py says.
      runs_dir: folder of run folders.
      to: the result, written anew after every training.
    """

    data: str = "cifar10"
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int | None = None
    runs_dir: Path = Path("runs")
    to: Path = RESULT


def compare(settings: Comparison) -> dict[str, Any]:
    """Trains what has not been trained and tests it."""
    base = load_config("cifar_four_layers")
    base = replace(base, epochs=settings.epochs or base.epochs)
    networks = {"with": base.network, "without": FOUR_LAYERS}
    errors: dict[str, list[float]] = {name: [] for name in networks}
    curves: dict[str, list[list[float]]] = {name: [] for name in networks}
    result: dict[str, Any] = {}
    for seed in settings.seeds:
        for name, network in networks.items():
            experiment = replace(base, network=network, seed=seed)
            options = Options(data=settings.data, runs_dir=settings.runs_dir, placement="single", devices=1)
            folder = train(network.name, experiment, options)
            if not (folder / "result.json").is_file():
                sys.exit(0)  # asked to stop
            trained = load(folder)
            tested = Predictor(trained, views="nine").split(find_dataset(settings.data, "cifar10", Path("data")), "test")
            errors[name].append(float((tested.rows.argmax(1) != tested.labels).mean()))
            log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            curves[name].append([line["top1_error"] for line in log if "epoch" in line])
            pairs = min(map(len, errors.values()))
            result = {
                "data": str(find_dataset(settings.data, "cifar10", Path("data")).manifest.source),
                "epochs": base.epochs,
                "cuts": list(getattr(base.schedule, "after", ())),
                "seeds": list(settings.seeds[:pairs]),
                "test_error": errors,
                "difference": asdict(paired_difference(errors["without"], errors["with"])) if pairs else None,
                "center_view_error_by_epoch": curves,
            }
            settings.to.parent.mkdir(parents=True, exist_ok=True)
            settings.to.write_text(json.dumps(result, indent=1) + "\n")
    return result


def table(result: dict[str, Any]) -> Table:
    """The test errors, a row for each seed."""
    rows = Table("seed", "without normalization", "with it")
    for seed, *pair in zip(result["seeds"], result["test_error"]["without"], result["test_error"]["with"], strict=False):
        rows.add_row(str(seed), *(f"{error:.2%}" for error in pair))
    if found := result["difference"]:
        rows.add_row("without minus with, points", str(PairedDifference(**found)))
    return rows


if __name__ == "__main__":
    settings = tyro.cli(Comparison)
    enable_compilation_cache()
    result = compare(settings)
    console.print(table(result))
    print(json.dumps(result))
