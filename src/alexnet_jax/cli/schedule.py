"""`schedule`: print the learning rates of a config or a run, epoch by epoch."""

import sys
from dataclasses import replace
from itertools import groupby
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from alexnet_jax.cli.find_config import find_config
from alexnet_jax.cli.parsing import parse
from alexnet_jax.cli.schedule_options import ScheduleOptions
from alexnet_jax.console import console
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import EpochHparams, ReduceOnPlateau


def run(arguments: list[str]) -> None:
    """Print the table of learning rates."""
    name, schedule = parse(_schedule, "schedule", arguments)
    config = find_config(name)
    for line in schedule.notes(config):
        console.print(line)
    Console(width=None if sys.stdout.isatty() else 140).print(schedule_table(schedule.apply(config)))


def _schedule(
    config: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")] = None,
    schedule: Annotated[ScheduleOptions, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff] = ScheduleOptions(),  # noqa: B008
) -> tuple[str | None, ScheduleOptions]:
    """Print the learning rates of a config or a run, epoch by epoch.

    Args:
      config: name of a config, a Python file that defines CONFIG, or a run folder, checkpoint or .safetensors file.
      schedule: number of epochs and learning rate schedule, as for `train`.
    """
    return config, schedule


def schedule_table(config: TrainConfig) -> Table:
    """Return a table of learning rates and color shifts by range of epochs.

    The table has columns for the network and for every layer in `config.layer_rates`; layers with the same rates share columns.
    Each row is a range of epochs. With `ReduceOnPlateau`, the epochs are not known in advance, and rows list the rates in order.

    Raises:
      UserError: if the config changes the learning rate of a layer that its network does not have.
    """
    layers = list(dict.fromkeys(change.layer for change in config.layer_rates))
    rows = _rows(config)
    layers_by_rates: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for layer in layers:
        layers_by_rates.setdefault(tuple(_layer_rates(hparams, layer) for _, hparams in rows), []).append(layer)
    title = f"{config.network.name}: at most {config.epochs} epochs, {config.batch_size} images per step"
    table = Table(title=title, min_width=len(title))
    table.add_column("epochs", no_wrap=True)
    for prefix in ("", *(f"{', '.join(layers)}: " for layers in layers_by_rates.values())):
        table.add_column(f"{prefix}weights", justify="right")
        table.add_column(f"{prefix}biases", justify="right")
    table.add_column("color shift", no_wrap=True)
    for epochs, hparams in rows:
        rates = [
            (hparams.weights, hparams.biases),
            *(_layer_rates(hparams, layers[0]) for layers in layers_by_rates.values()),
        ]
        table.add_row(epochs, *(f"{rate:g}" for pair in rates for rate in pair), "on" if hparams.color else "off")
    if isinstance(config.schedule, ReduceOnPlateau):
        table.caption = _plateau_caption(config)
    return table


def _layer_rates(hparams: EpochHparams, layer: str) -> tuple[float, float]:
    return hparams.layers.get(layer, (hparams.weights, hparams.biases))


def _rows(config: TrainConfig) -> list[tuple[str, EpochHparams]]:
    """Return the ranges of epochs and their hyperparameters, in order."""
    schedule = config.schedule
    if isinstance(schedule, ReduceOnPlateau):
        # Simulate an error that never improves: each rate lasts one epoch that sets the best error, and one more. The rates do
        # not depend on the patience, which may be large.
        constant = replace(config, schedule=replace(schedule, patience=1), layer_rates=(), color_epochs=None)
        hparams_by_rate = [
            constant.epoch_hparams(epochs, dict.fromkeys(range(1, epochs + 1), 1.0))
            for epochs in range(0, 2 * (schedule.max_reductions + 1), 2)
        ]
        return [("until a plateau", hparams) for hparams in hparams_by_rate if hparams]
    numbered = [(epoch + 1, config.epoch_hparams(epoch)) for epoch in range(config.epochs)]
    rows = []
    for hparams, group in groupby(numbered, key=lambda item: item[1]):
        epochs = [epoch for epoch, _ in group]
        if hparams:
            rows.append((f"{epochs[0]}–{epochs[-1]}" if len(epochs) > 1 else f"{epochs[0]}", hparams))
    return rows


def _plateau_caption(config: TrainConfig) -> str:
    schedule = config.schedule
    assert isinstance(schedule, ReduceOnPlateau)
    plateau = (
        f"Plateau: {schedule.patience} epochs in which the validation top-1 error does not decrease by more than "
        f"{schedule.min_delta:.2%}."
    )
    changes = [
        f" After epoch {change.after}, the learning rate of {change.layer} is {change.weights:g}"
        + ("." if change.biases is None else f", that of its biases {change.biases:g}.")
        for change in config.layer_rates
    ]
    colors = [] if config.color_epochs is None else [f" After epoch {config.color_epochs}, no color shift."]
    return plateau + "".join(changes + colors)
