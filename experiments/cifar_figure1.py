"""Figure 1 of the paper: number of epochs to a training error of 25% on CIFAR-10, with ReLU and with tanh.

    alexnet-jax prepare --from cifar-10-binary.tar.gz --to data/cifar10
    python experiments/cifar_figure1.py

The paper reports six times fewer epochs with ReLU, for a four-layer network without regularization, with the learning rate of
each network chosen to make training as fast as possible. It does not describe the network. This study uses cuda-convnet's
layers-19pct.cfg, three convolutional layers and a softmax layer, on full images without augmentation or weight decay, with a
batch size of 128, momentum 0.9 and a constant learning rate. The training error is the mean over the batches of an epoch, each
evaluated before its update.

Learning rates are chosen by successive halving: all are trained for two epochs, the better half for four, and so on, until one
network reaches 25%. To resume after an interruption, run the same command. Results: results/cifar_figure1.json and .png.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cli.process import configure_process
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.errors import DivergedError, check_at_least
from alexnet_jax.files import write_json
from alexnet_jax.model.cifar import THREE_CONVOLUTIONS
from alexnet_jax.model.comparison_layers import Tanh
from alexnet_jax.model.layers import ReLU
from alexnet_jax.model.network import Network
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.preemption import StopOnSignal
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.schedule import StepDecay
from alexnet_jax.training.train import train

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
    augmentation=Augmentation(image_size=32, transforms=(), mean="center"),
)


@dataclass(frozen=True)
class Figure1:
    """Train with ReLU and with tanh until the training error is 25%.

    Attributes:
      data: prepared CIFAR-10 data set.
      rates: candidate learning rates.
      max_epochs: epochs after which the search ends without reaching the target.
      runs_dir: folder of run folders.
      to: folder for the result and the figure.
    """

    data: str = "cifar10"
    rates: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    max_epochs: int = 80
    runs_dir: Path = Path("runs")
    to: Path = RESULTS

    def __post_init__(self) -> None:
        check_at_least(self, rates=0, max_epochs=1)


Curves = dict[float, list[float]]
"""Training error of every epoch, by learning rate."""


def search(rates: tuple[float, ...], train_to: Callable[[float, int], list[float]], max_epochs: int) -> Curves:
    """Search learning rates by successive halving until one reaches the target error.

    Args:
      rates: candidate learning rates.
      train_to: function of a rate and an epoch that trains up to that epoch and returns the training error of every epoch, or
        of fewer epochs if training diverged.
      max_epochs: epochs after which the search ends without reaching the target.

    Returns:
      The training errors of all candidates.
    """
    curves: Curves = {}
    remaining = list(rates)
    for epoch in range(1, max_epochs + 1):
        for rate in remaining:
            curves[rate] = train_to(rate, epoch)
        remaining = [rate for rate in remaining if len(curves[rate]) == epoch]
        if not remaining or min(curves[rate][-1] for rate in remaining) <= TARGET:
            break
        if epoch >= 2 and epoch & (epoch - 1) == 0:  # 2, 4, 8 …
            remaining = sorted(remaining, key=lambda rate: curves[rate][-1])[: -(-len(remaining) // 2)]
    return curves


def epochs_to_target(curve: list[float]) -> float | None:
    """Return the epoch at which a curve reaches the target, linearly interpolated; None if it never does."""
    for epoch, error in enumerate(curve, 1):
        if error <= TARGET:
            before = curve[epoch - 2] if epoch > 1 else 1.0
            return epoch - 1 + (before - TARGET) / (before - error)
    return None


def train_candidates(network: Network, settings: Figure1) -> Curves:
    """Search the learning rates of a network, and return the training errors of all candidates."""

    def train_to(rate: float, epoch: int) -> list[float]:
        config = replace(CONFIG, network=network, learning_rate=rate, epochs=epoch)
        folder = settings.runs_dir / network.name / f"rate{rate:g}"
        errors = training_errors(folder)
        if len(errors) >= epoch:
            return errors[:epoch]
        try:
            with StopOnSignal() as should_stop:
                options = Options(data=settings.data, run=folder, placement="single", devices=1)
                result = train(network.name, config, options, should_stop=should_stop)
        except DivergedError:
            return errors
        if not result.finished:
            sys.exit(0)  # stopped by a signal
        return training_errors(folder)

    return search(settings.rates, train_to, settings.max_epochs)


def training_errors(folder: Path) -> list[float]:
    """Read the training error of every epoch from the log of a run; empty if there is no log."""
    return [line["training_error"] for line in RunDirectory(folder).log_lines() if "epoch" in line]


def draw(curves: dict[str, Curves], file: Path) -> None:
    """Plot all training curves; the fastest of each network is thick and labeled."""
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for (name, candidates), style, color in zip(curves.items(), ("-", "--"), ("tab:blue", "tab:orange"), strict=True):
        best = fastest(candidates)
        for rate, curve in candidates.items():
            label = f"{name}, learning rate {rate:g}" if rate == best else None
            axes.plot(range(1, len(curve) + 1), curve, style, color=color, linewidth=2 if rate == best else 0.5, label=label)
    axes.axhline(TARGET, color="gray", linewidth=0.8, linestyle=":")
    axes.set(xlabel="epochs", ylabel="training error rate", ylim=(0, 0.75), xlim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def fastest(curves: Curves) -> float:
    """Return the learning rate that reaches the target first or, if none does, the one with the lowest final error."""
    return min(curves, key=lambda rate: (epochs_to_target(curves[rate]) or float("inf"), curves[rate][-1:] or [1.0]))


def result(curves: dict[str, Curves], data: str) -> dict[str, Any]:
    """Return the content of cifar_figure1.json."""
    networks = {}
    for name, candidates in curves.items():
        best = fastest(candidates)
        networks[name] = {
            "rate": best,
            "epochs_to_25_percent": epochs_to_target(candidates[best]),
            "training_errors": {f"{rate:g}": curve for rate, curve in candidates.items()},
        }
    epochs = [values["epochs_to_25_percent"] for values in networks.values()]
    ratio = epochs[1] / epochs[0] if all(epochs) and len(epochs) == 2 else None
    return {"data": data, **networks, "tanh_by_relu": ratio}


def main() -> None:
    settings = tyro.cli(Figure1)
    configure_process()
    tanh_layers = tuple(Tanh() if isinstance(layer, ReLU) else layer for layer in THREE_CONVOLUTIONS.layers)
    networks = {"relu": THREE_CONVOLUTIONS, "tanh": replace(THREE_CONVOLUTIONS, name="cifar_19pct_tanh", layers=tanh_layers)}
    curves = {}
    for name, network in networks.items():
        curves[name] = train_candidates(network, settings)
        write_json(settings.to / "cifar_figure1.json", result(curves, settings.data))
    draw(curves, settings.to / "cifar_figure1.png")
    print(json.dumps(result(curves, settings.data)))


if __name__ == "__main__":
    with exit_on_error():
        main()
