"""Rates from validation errors, and what the experiments make of them."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from alexnet_jax.cli import main as cli
from alexnet_jax.configs import load_config
from alexnet_jax.errors import UserError
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, ReduceOnPlateau, StaircaseExponential, StepDecay
from tests.conftest import TINY


def weights(experiment, errors):
    """Rate of weights in every epoch, the first included; None where training is over."""
    stages = [experiment.epoch_hparams(errors[:epoch]) for epoch in range(len(errors) + 1)]
    return [stage and float(f"{stage.weights:g}") for stage in stages]


def test_the_rate_falls_when_the_error_stops_improving_and_in_the_end_training_stops():
    experiment = TrainConfig(TINY, schedule=ReduceOnPlateau(patience=2, min_delta=0.01, max_reductions=2))
    errors = [
        0.9, 0.8, 0.795, 0.7,  # 0.795 is no improvement, but one epoch of it is not two
        0.71, 0.695,  # two epochs without one: cut
        0.75, 0.74, 0.73,  # worse than before the cut, but improving with the rate there is now
        0.73, 0.72,  # two without 0.01 less than 0.74: cut
        0.5, 0.5, 0.5,  # the end
    ]  # fmt: skip
    assert weights(experiment, errors) == [0.01] * 6 + [0.001] * 5 + [0.0001] * 3 + [None]


@pytest.mark.parametrize("errors", [[0.5] * 4, [0.5, 0.6, float("nan"), 0.7]], ids=["equal", "with a nan"])
def test_what_is_not_better_is_no_improvement(errors):
    experiment = TrainConfig(TINY, schedule=ReduceOnPlateau(patience=3, min_delta=0.0, max_reductions=0))
    assert weights(experiment, errors) == [0.01] * 4 + [None]


def test_cuts_are_exact_in_float32():
    """As the step would reckon them: a rate written otherwise is another training."""
    stage = TrainConfig(TINY, learning_rate=0.004, schedule=StepDecay((2,))).epoch_hparams([1.0, 1.0])
    assert stage is not None
    assert stage.weights == np.float32(0.004) * np.float32(0.1) != np.float32(0.0004)


def test_dexp_is_that_of_net_170():
    experiment = TrainConfig(TINY, schedule=StaircaseExponential(), bias_rate=2.0)
    stages = [experiment.epoch_hparams([1.0] * epoch) for epoch in (0, 22, 23, 45, 68, 89, 200)]
    rates = [(stage.weights, stage.biases) for stage in stages if stage]
    # base .01, factor 250 in 4 steps; base .02, factor 10 in 2 steps: layer-params-170.cfg
    first, second, third, last = 0.01, 0.001587401, 0.000251984, 0.00004
    expected = [(first, 0.02), (first, 0.02), (second, 0.02), (third, 0.002), (last, 0.002), (last, 0.002), (last, 0.002)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_layers_keep_the_rate_they_are_given_and_colors_go_with_their_divisor():
    changes = (LayerRate("conv1", after=1, weights=1e-5), LayerRate("conv1", after=3, weights=0.0, biases=0.0))
    experiment = TrainConfig(TINY, bias_rate=2.0, schedule=StepDecay((2,)), layer_rates=changes, color_epochs=1)
    stages = [experiment.epoch_hparams([1.0] * epoch) for epoch in range(4)]
    assert [stage and stage.color for stage in stages] == [True, False, False, False]
    rates = [stage.layers.get("conv1", (0.01, 0.02)) for stage in stages if stage]
    np.testing.assert_allclose(rates, [(0.01, 0.02), (1e-5, 0.02), (1e-5, 0.002), (0.0, 0.0)], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReduceOnPlateau(patience=0), "patience of one epoch"),
        (lambda: StepDecay((0,)), "after epoch 1"),
        (lambda: StaircaseExponential(steps=0), "one step or more"),
        (
            lambda: TrainConfig(TINY, layer_rates=(LayerRate("conv9", 1, 0.0),)).epoch_hparams([]),
            "tiny has no layer conv9.*conv1",
        ),
    ],
)
def test_schedules_that_mean_nothing_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def printed(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "schedule", name])
    cli.main()
    return [
        [cell.strip() for cell in line.strip("│\n").split("│")] for line in capsys.readouterr().out.splitlines() if "│" in line
    ]


def test_the_schedule_of_source_145_is_the_logged_one(monkeypatch, capsys):
    assert printed("source_145", monkeypatch, capsys) == [
        ["1–25", "0.01", "0.02", "0.01", "0.02", "on"],
        ["26–51", "0.001", "0.02", "0.001", "0.02", "on"],
        ["52–67", "0.0001", "0.02", "0.0001", "0.02", "on"],
        ["68–72", "0.0001", "0.02", "1e-05", "0.02", "off"],
        ["73–79", "0.0001", "0.02", "0", "0", "off"],
        ["80–91", "1e-05", "0.02", "0", "0", "off"],
    ]


def test_the_schedule_of_fine_tuning_is_the_logged_one(monkeypatch, capsys):
    assert [[row[i] for i in (0, 1, 3, 4, 5, 7)] for row in printed("finetune", monkeypatch, capsys)] == [
        ["1–5", "0.001", "0.0001", "0.02", "0.01", "on"],
        ["6–7", "0.001", "1e-05", "0.02", "0.01", "on"],
        ["8–9", "0.001", "0", "0", "0.01", "on"],
        ["10–22", "0.001", "0", "0", "0.001", "on"],
        ["23–38", "0.0001", "0", "0", "0.0001", "on"],
        ["39–42", "0.0001", "0", "0", "0.0001", "off"],
        ["43–54", "1e-05", "0", "0", "1e-05", "off"],
    ]


def test_layers_of_equal_rates_share_their_columns(monkeypatch, capsys):
    assert printed("fall2011", monkeypatch, capsys) == [
        ["1–6", "0.01", "0.02", "0.001", "0.02", "on"],
        ["7–8", "0.001", "0.02", "0.001", "0.02", "on"],
    ]


def test_the_schedule_of_the_prose_is_four_rates(monkeypatch, capsys):
    rows = printed("two_tower", monkeypatch, capsys)
    assert [row[:2] for row in rows] == [["until it stops improving", rate] for rate in ("0.01", "0.001", "0.0001", "1e-05")]


def test_quickstart_is_cut_once():
    experiment = load_config("quickstart")
    assert weights(experiment, [1.0] * 27) == [0.004] * 22 + [0.0004] * 6
    assert weights(replace(experiment, schedule=ReduceOnPlateau()), [1.0] * 3) == [0.004] * 4
