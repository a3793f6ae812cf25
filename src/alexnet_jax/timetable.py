"""The schedule of an experiment as a table: what holds in which epochs."""

from dataclasses import replace
from itertools import groupby

from rich.table import Table

from alexnet_jax.experiment import Experiment
from alexnet_jax.schedule import Plateau, Stage


def timetable(experiment: Experiment) -> Table:
    """Rates of weights and biases, of the first layer and of those that get their own, and colour noise.

    Layers whose rates are always the same share their columns. Rows are ranges of epochs, or where the validation error decides,
    the rates in their order.

    Raises:
      UserError: if the experiment changes the rate of a layer that its network does not have.
    """
    layers = list(dict.fromkeys([next(iter(experiment.network.named_layers)), *(c.layer for c in experiment.layer_rates)]))
    rows = _rows(experiment)
    alike: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for layer in layers:
        alike.setdefault(tuple(_rates(stage, layer) for _, stage in rows), []).append(layer)
    table = Table(title=f"{experiment.network.name}: {experiment.epochs} epochs at most, {experiment.batch_size} images a step")
    table.add_column("epochs", no_wrap=True)
    for layer in ("", *(f"{', '.join(layers)}: " for layers in alike.values())):
        table.add_column(f"{layer}weights", justify="right")
        table.add_column(f"{layer}biases", justify="right")
    table.add_column("colour noise", no_wrap=True)
    for epochs, stage in rows:
        rates = [(stage.weights, stage.biases), *(_rates(stage, layers[0]) for layers in alike.values())]
        table.add_row(epochs, *(f"{rate:g}" for pair in rates for rate in pair), "on" if stage.color else "off")
    if isinstance(experiment.schedule, Plateau):
        table.caption = _plateau_told(experiment)
    return table


def _rates(stage: Stage, layer: str) -> tuple[float, float]:
    return stage.layers.get(layer, (stage.weights, stage.biases))


def _rows(experiment: Experiment) -> list[tuple[str, Stage]]:
    """Stages with the epochs that each holds in."""
    rule = experiment.schedule
    if isinstance(rule, Plateau):
        # What an error that never improves would lead to: an epoch to be the best one, and `patience` that are no better.
        lasting = replace(experiment, layer_rates=(), color_epochs=None)
        stages = [lasting.stage([1.0] * (1 + rule.patience) * cuts) for cuts in range(rule.cuts + 1)]
        return [("until it stops improving", stage) for stage in stages if stage]
    stages = [(epoch + 1, experiment.stage([1.0] * epoch)) for epoch in range(experiment.epochs)]
    rows = []
    for stage, group in groupby(stages, key=lambda numbered: numbered[1]):
        epochs = [epoch for epoch, _ in group]
        if stage:
            rows.append((f"{epochs[0]}–{epochs[-1]}", stage))
    return rows


def _plateau_told(experiment: Experiment) -> str:
    rule = experiment.schedule
    assert isinstance(rule, Plateau)
    told = f"It, the validation top-1 error, has stopped after {rule.patience} epochs without {rule.smallest:.2%} less."
    changes = [
        f" After epoch {change.after}, {change.layer} has {change.weights:g}"
        + ("." if change.biases is None else f", its biases {change.biases:g}.")
        for change in experiment.layer_rates
    ]
    colors = [] if experiment.color_epochs is None else [f" After epoch {experiment.color_epochs}, no colour noise."]
    return told + "".join(changes + colors)
