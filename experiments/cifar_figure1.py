"""Figure 1 of the paper: how many epochs a network with ReLUs and one with tanh take to a training error of 25 % on CIFAR-10.

    python -m alexnet_jax prepare --from cifar-10-binary.tar.gz --to data/cifar10
    python experiments/cifar_figure1.py

Paper: six times fewer with ReLUs; a four-layer network, no regularization of any kind, the learning rate of each chosen to make
it as fast as possible. Which network, it does not say: here it is cuda-convnet's layers-19pct.cfg, three convolutions and the
classes, on whole images that do not vary, without weight decay. Batches of 128, momentum 0.9, a constant rate. The training
error is the mean over the batches of an epoch, each before the step it led to.

The search: all rates are trained for two epochs, the better half of them for four, and so on, until one network reaches 25 %.
Broken off, the same command goes on. What came out: results/cifar_figure1.json and .png.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import tyro

from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import DivergedError
from alexnet_jax.model.cifar import THREE_CONVOLUTIONS
from alexnet_jax.model.comparison_layers import Tanh
from alexnet_jax.model.layers import ReLU
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.loop import Options, train
from alexnet_jax.training.schedule import StepDecay

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
TARGET = 0.25

CONFIG = TrainConfig(
    network=THREE_CONVOLUTIONS,
    default_data="cifar10",
    epochs=10,
    learning_rate=0.001,
    bias_rate=2.0,
    schedule=StepDecay(milestones=()),
    weight_decay=0.0,
    augmentation=Augmentation(image_size=32, crop=False, flip=False, mean="center", color=None),
)


@dataclass(frozen=True)
class Race:
    """Train with ReLUs and with tanh until the training error is 25 %.

    Attributes:
      data: CIFAR-10, prepared.
      rates: learning rates to choose from.
      most: epochs after which to give up.
      runs_dir: folder of run folders.
      to: folder for the result and the figure.
    """

    data: str = "cifar10"
    rates: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    most: int = 80
    runs_dir: Path = Path("runs")
    to: Path = RESULTS


Curves = dict[float, list[float]]
"""Training error after every epoch, by learning rate."""


def search(rates: tuple[float, ...], train_to: Callable[[float, int], list[float]], most: int) -> Curves:
    """Trains with all rates, with ever fewer of them, until one reaches the target or `most` epochs are over.

    Args:
      rates: to choose from.
      train_to: trains with a rate to an epoch and returns the training errors so far, fewer if it has diverged.
      most: epochs.
    """
    curves: Curves = {}
    left = list(rates)
    for epoch in range(1, most + 1):
        for rate in left:
            curves[rate] = train_to(rate, epoch)
        left = [rate for rate in left if len(curves[rate]) == epoch]
        if not left or min(curves[rate][-1] for rate in left) <= TARGET:
            break
        if epoch >= 2 and epoch & (epoch - 1) == 0:  # 2, 4, 8 …
            left = sorted(left, key=lambda rate: curves[rate][-1])[: -(-len(left) // 2)]
    return curves


def epochs_to_target(curve: list[float]) -> float | None:
    """When a curve crosses the target, on the line between the epochs before and after; None if it does not."""
    for epoch, error in enumerate(curve, 1):
        if error <= TARGET:
            before = curve[epoch - 2] if epoch > 1 else 1.0
            return epoch - 1 + (before - TARGET) / (before - error)
    return None


def raced(network: Network, race: Race) -> Curves:
    def train_to(rate: float, epoch: int) -> list[float]:
        experiment = replace(CONFIG, network=network, learning_rate=rate, epochs=epoch)
        folder = race.runs_dir / network.name / f"rate{rate:g}"
        done = training_errors(folder)
        if len(done) >= epoch:
            return done[:epoch]
        try:
            train(network.name, experiment, Options(data=race.data, run=folder, placement="single", devices=1))
        except DivergedError:
            return done
        if len(done := training_errors(folder)) < epoch:
            sys.exit(0)  # asked to stop
        return done

    return search(race.rates, train_to, race.most)


def training_errors(folder: Path) -> list[float]:
    """Of every epoch in the log of a run."""
    log = folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    return [line["training_error"] for line in lines if "epoch" in line]


def draw(curves: dict[str, Curves], file: Path) -> None:
    """The fastest curve of each, as in the paper, and the others thin."""
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for (name, found), style, color in zip(curves.items(), ("-", "--"), ("tab:blue", "tab:orange"), strict=True):
        best = fastest(found)
        for rate, curve in found.items():
            label = f"{name}, rate {rate:g}" if rate == best else None
            axes.plot(range(1, len(curve) + 1), curve, style, color=color, linewidth=2 if rate == best else 0.5, label=label)
    axes.axhline(TARGET, color="gray", linewidth=0.8, linestyle=":")
    axes.set(xlabel="epochs", ylabel="training error rate", ylim=(0, 0.75), xlim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def fastest(curves: Curves) -> float:
    """The rate that reaches the target first, or comes nearest."""
    return min(curves, key=lambda rate: (epochs_to_target(curves[rate]) or float("inf"), curves[rate][-1:] or [1.0]))


def result(curves: dict[str, Curves], data: str) -> dict[str, Any]:
    """What is committed."""
    found = {}
    for name, of_rates in curves.items():
        best = fastest(of_rates)
        found[name] = {
            "rate": best,
            "epochs_to_25_percent": epochs_to_target(of_rates[best]),
            "training_errors": {f"{rate:g}": curve for rate, curve in of_rates.items()},
        }
    epochs = [values["epochs_to_25_percent"] for values in found.values()]
    ratio = epochs[1] / epochs[0] if all(epochs) and len(epochs) == 2 else None
    return {"data": data, **found, "tanh_by_relu": ratio}


if __name__ == "__main__":
    race = tyro.cli(Race)
    enable_compilation_cache()
    with_tanh = tuple(Tanh() if isinstance(layer, ReLU) else layer for layer in THREE_CONVOLUTIONS.layers)
    networks = {"relu": THREE_CONVOLUTIONS, "tanh": replace(THREE_CONVOLUTIONS, name="cifar_19pct_tanh", layers=with_tanh)}
    curves = {}
    for name, network in networks.items():
        curves[name] = raced(network, race)
        race.to.mkdir(parents=True, exist_ok=True)
        (race.to / "cifar_figure1.json").write_text(json.dumps(result(curves, race.data), indent=1) + "\n")
    draw(curves, race.to / "cifar_figure1.png")
    print(json.dumps(result(curves, race.data)))
