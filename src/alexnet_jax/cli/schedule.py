"""`schedule`: print the learning rates of a config, epoch by epoch."""

import sys
from dataclasses import replace
from itertools import groupby

from rich.console import Console
from rich.table import Table

from alexnet_jax.configs import config_names, load_config
from alexnet_jax.errors import UserError
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import EpochHparams, ReduceOnPlateau


def run(arguments: list[str]) -> None:
    """Print the table of learning rates."""
    if len(arguments) != 1:
        raise UserError(f"name a config: alexnet-jax schedule CONFIG, one of {', '.join(config_names())}, or a Python file")
    Console(width=None if sys.stdout.isatty() else 140).print(schedule_table(load_config(arguments[0])))


def schedule_table(config: TrainConfig) -> Table:
    """Rates of weights and biases, of the first layer and of those that get their own, and color noise.

    Layers whose rates are always the same share their columns. Rows are ranges of epochs, or where the validation error decides,
    the rates in their order.

    Raises:
      UserError: if the config changes the rate of a layer that its network does not have.
    """
    layers = list(dict.fromkeys([next(iter(config.network.named_layers)), *(c.layer for c in config.layer_rates)]))
    rows = _rows(config)
    alike: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for layer in layers:
        alike.setdefault(tuple(_rates(stage, layer) for _, stage in rows), []).append(layer)
    table = Table(title=f"{config.network.name}: {config.epochs} epochs at most, {config.batch_size} images a step")
    table.add_column("epochs", no_wrap=True)
    for layer in ("", *(f"{', '.join(layers)}: " for layers in alike.values())):
        table.add_column(f"{layer}weights", justify="right")
        table.add_column(f"{layer}biases", justify="right")
    table.add_column("color noise", no_wrap=True)
    for epochs, stage in rows:
        rates = [(stage.weights, stage.biases), *(_rates(stage, layers[0]) for layers in alike.values())]
        table.add_row(epochs, *(f"{rate:g}" for pair in rates for rate in pair), "on" if stage.color else "off")
    if isinstance(config.schedule, ReduceOnPlateau):
        table.caption = _plateau_told(config)
    return table


def _rates(stage: EpochHparams, layer: str) -> tuple[float, float]:
    return stage.layers.get(layer, (stage.weights, stage.biases))


def _rows(config: TrainConfig) -> list[tuple[str, EpochHparams]]:
    """Stages with the epochs that each holds in."""
    rule = config.schedule
    if isinstance(rule, ReduceOnPlateau):
        # What an error that never improves would lead to: an epoch to be the best one, and `patience` that are no better.
        lasting = replace(config, layer_rates=(), color_epochs=None)
        stages = [lasting.epoch_hparams([1.0] * (1 + rule.patience) * cuts) for cuts in range(rule.max_reductions + 1)]
        return [("until it stops improving", stage) for stage in stages if stage]
    stages = [(epoch + 1, config.epoch_hparams([1.0] * epoch)) for epoch in range(config.epochs)]
    rows = []
    for stage, group in groupby(stages, key=lambda numbered: numbered[1]):
        epochs = [epoch for epoch, _ in group]
        if stage:
            rows.append((f"{epochs[0]}–{epochs[-1]}", stage))
    return rows


def _plateau_told(config: TrainConfig) -> str:
    rule = config.schedule
    assert isinstance(rule, ReduceOnPlateau)
    told = f"It, the validation top-1 error, has stopped after {rule.patience} epochs without {rule.min_delta:.2%} less."
    changes = [
        f" After epoch {change.after}, {change.layer} has {change.weights:g}"
        + ("." if change.biases is None else f", its biases {change.biases:g}.")
        for change in config.layer_rates
    ]
    colors = [] if config.color_epochs is None else [f" After epoch {config.color_epochs}, no color noise."]
    return told + "".join(changes + colors)
