"""Tests of the learning rate schedules, and of the tables that `schedule` prints for the configs."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.cli import main as cli
from alexnet_jax.configs import load_config
from alexnet_jax.errors import UserError
from alexnet_jax.training.config import TrainConfig
from alexnet_jax.training.schedule import LayerRate, ReduceOnPlateau, StaircaseExponential, StepDecay
from tests.conftest import TINY


def by_epoch(errors):
    """Return the errors of consecutive epochs by epoch; those that are None were not evaluated."""
    return {epoch: error for epoch, error in enumerate(errors, 1) if error is not None}


def weights(config, errors):
    """Return the weight learning rate of every epoch and of the next one; None after the end of training."""
    hparams = [config.epoch_hparams(epoch, by_epoch(errors[:epoch])) for epoch in range(len(errors) + 1)]
    return [epoch_hparams and float(f"{epoch_hparams.weights:g}") for epoch_hparams in hparams]


def test_reduce_on_plateau():
    config = TrainConfig(TINY, schedule=ReduceOnPlateau(patience=2, min_delta=0.01, max_reductions=2))
    errors = [
        0.9, 0.8, 0.795, 0.7,  # 0.795 is not an improvement, but a single epoch is less than the patience of two
        0.71, 0.695,  # two epochs without improvement: first reduction
        0.75, 0.74, 0.73,  # worse than before the reduction, but improving at the current rate
        0.73, 0.72,  # two epochs that are not 0.01 below 0.74: second reduction
        0.5, 0.5, 0.5,  # third plateau: end of training
    ]  # fmt: skip
    assert weights(config, errors) == [0.01] * 6 + [0.001] * 5 + [0.0001] * 3 + [None]


@pytest.mark.parametrize("errors", [[0.5] * 4, [0.5, 0.6, float("nan"), 0.7]], ids=["equal", "nan"])
def test_equal_and_nan_errors_are_no_improvement(errors):
    config = TrainConfig(TINY, schedule=ReduceOnPlateau(patience=3, min_delta=0.0, max_reductions=0))
    assert weights(config, errors) == [0.01] * 4 + [None]


def test_rates_are_products_in_float32():
    """Check that the rate is the float32 product of its factors, not the float32 nearest to the decimal product."""
    epoch_hparams = TrainConfig(TINY, learning_rate=0.004, schedule=StepDecay((2,))).epoch_hparams(2)
    assert epoch_hparams is not None
    assert epoch_hparams.weights == np.float32(0.004) * np.float32(0.1) != np.float32(0.0004)


def test_staircase_exponential_equals_dexp_of_net_170():
    config = TrainConfig(TINY, schedule=StaircaseExponential(), bias_rate=2.0)
    hparams = [config.epoch_hparams(epoch) for epoch in (0, 22, 23, 45, 68, 89, 200)]
    rates = [(epoch_hparams.weights, epoch_hparams.biases) for epoch_hparams in hparams if epoch_hparams]
    # layer-params-170.cfg: base 0.01 with factor 250 in 4 steps, and base 0.02 with factor 10 in 2 steps
    first, second, third, last = 0.01, 0.001587401, 0.000251984, 0.00004
    expected = [(first, 0.02), (first, 0.02), (second, 0.02), (third, 0.002), (last, 0.002), (last, 0.002), (last, 0.002)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_layer_rates_and_color_epochs():
    changes = (LayerRate("conv1", after=1, weights=1e-5), LayerRate("conv1", after=3, weights=0.0, biases=0.0))
    config = TrainConfig(TINY, bias_rate=2.0, schedule=StepDecay((2,)), layer_rates=changes, color_epochs=1)
    hparams = [config.epoch_hparams(epoch) for epoch in range(4)]
    assert [epoch_hparams and epoch_hparams.color for epoch_hparams in hparams] == [True, False, False, False]
    rates = [epoch_hparams.layers.get("conv1", (0.01, 0.02)) for epoch_hparams in hparams if epoch_hparams]
    np.testing.assert_allclose(rates, [(0.01, 0.02), (1e-5, 0.02), (1e-5, 0.002), (0.0, 0.0)], rtol=1e-6)


def test_rates_from_the_first_epoch_on_stay_so_with_other_numbers_of_epochs():
    config = load_config("finetune").with_epochs(108)
    assert [(rate.layer, rate.after) for rate in config.layer_rates] == [
        ("conv1", 0), ("conv1", 10), ("conv1", 14), ("fc8", 0), ("fc8", 18), ("fc8", 44), ("fc8", 84),
    ]  # fmt: skip
    assert (config.schedule, config.color_epochs) == (StepDecay(milestones=(44, 84), bias_milestones=()), 76)
    assert len({*config.layer_rates}) == 7, "hashable, because immutable"
    with_bias_milestones = TrainConfig(TINY, epochs=10, schedule=StepDecay((4,), (6,)))
    assert with_bias_milestones.with_epochs(20).schedule == StepDecay((8,), (12,))
    first = config.epoch_hparams(0)
    assert first is not None
    assert first.layers == {"conv1": (1e-4, pytest.approx(0.02)), "fc8": (0.01, pytest.approx(0.02))}


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: ReduceOnPlateau(patience=0), "--patience must be at least 1, not 0"),
        (lambda: StepDecay((0,)), "--milestones must be at least 1, not 0"),
        (lambda: StepDecay((1,), (0,)), "--bias-milestones must be at least 1, not 0"),
        (lambda: StaircaseExponential(num_levels=0), "--num-levels must be at least 1, not 0"),
        (
            lambda: TrainConfig(TINY, layer_rates=(LayerRate("conv9", 1, 0.0),)).epoch_hparams(0),
            "tiny has no layer conv9.*conv1",
        ),
    ],
)
def test_invalid_schedules_are_errors(construct, message):
    with pytest.raises(UserError, match=message):
        construct()


def printed_rows(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "schedule", name])
    cli.main()
    return [
        [cell.strip() for cell in line.strip("│\n").split("│")] for line in capsys.readouterr().out.splitlines() if "│" in line
    ]


def test_schedule_of_source_145_equals_the_log(monkeypatch, capsys):
    assert printed_rows("source_145", monkeypatch, capsys) == [
        ["1–25", "0.01", "0.02", "0.01", "0.02", "on"],
        ["26–51", "0.001", "0.02", "0.001", "0.02", "on"],
        ["52–67", "0.0001", "0.02", "0.0001", "0.02", "on"],
        ["68–72", "0.0001", "0.02", "1e-05", "0.02", "off"],
        ["73–79", "0.0001", "0.02", "0", "0", "off"],
        ["80–91", "1e-05", "0.02", "0", "0", "off"],
    ]


def test_schedule_of_finetune_equals_the_log(monkeypatch, capsys):
    assert [[row[i] for i in (0, 1, 3, 4, 5, 7)] for row in printed_rows("finetune", monkeypatch, capsys)] == [
        ["1–5", "0.001", "0.0001", "0.02", "0.01", "on"],
        ["6–7", "0.001", "1e-05", "0.02", "0.01", "on"],
        ["8–9", "0.001", "0", "0", "0.01", "on"],
        ["10–22", "0.001", "0", "0", "0.001", "on"],
        ["23–38", "0.0001", "0", "0", "0.0001", "on"],
        ["39–42", "0.0001", "0", "0", "0.0001", "off"],
        ["43–54", "1e-05", "0", "0", "1e-05", "off"],
    ]


def test_layers_with_equal_rates_share_columns(monkeypatch, capsys):
    assert printed_rows("fall2011", monkeypatch, capsys) == [
        ["1–6", "0.01", "0.02", "0.001", "0.02", "on"],
        ["7–8", "0.001", "0.02", "0.001", "0.02", "on"],
    ]


def test_schedule_of_two_tower_has_four_rates(monkeypatch, capsys):
    rows = printed_rows("two_tower", monkeypatch, capsys)
    assert [row[:2] for row in rows] == [["until a plateau", rate] for rate in ("0.01", "0.001", "0.0001", "1e-05")]


def test_schedule_of_quickstart_has_one_reduction():
    config = load_config("quickstart")
    assert weights(config, [1.0] * 27) == [0.004] * 22 + [0.0004] * 6
    assert weights(replace(config, schedule=ReduceOnPlateau()), [1.0] * 3) == [0.004] * 4


def test_plateau_before_learning_is_not_counted():
    """The network predicts the most frequent class, with an error of 0.75, then another one, and then learns."""
    schedule = ReduceOnPlateau(patience=2, min_delta=0.001)
    before, learning = [0.75] * 6 + [0.8] + [0.745] * 5, [0.73, 0.7, 0.7, 0.7]
    factors = [schedule.factors(epoch, by_epoch([*before, *learning][:epoch]), majority_error=0.75) for epoch in range(17)]
    assert [factor and round(factor.weights, 6) for factor in factors] == [1.0] * 16 + [0.1]
    without_majority_error = schedule.factors(3, by_epoch(before[:3]))
    assert without_majority_error == (pytest.approx(0.1), pytest.approx(0.1)), "counted"


def test_two_tower_keeps_its_rate_on_the_plateau_of_small_data_sets():
    """Errors of `two_tower` on photos of clothes in ten classes, measured with this config."""
    result = json.loads((Path(__file__).parents[2] / "experiments" / "results" / "photos.json").read_text())
    errors, majority_error = result["runs"]["two_tower"]["validation_top1_error"], result["majority_class_error"]
    config = load_config("two_tower")
    for epoch in range(len(errors)):
        hparams = config.epoch_hparams(epoch, by_epoch(errors[:epoch]), majority_error)
        assert hparams is not None
        assert hparams.weights == pytest.approx(0.01)
    assert errors[-1] < majority_error - 0.25


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1), st.integers(1, 4))
def test_schedule_depends_only_on_the_errors_after_learning_began(errors, majority_error, patience):
    schedule = ReduceOnPlateau(patience=patience)
    learned = [epoch for epoch, error in enumerate(errors) if error < majority_error - 0.01]
    expected = schedule.factors(0, by_epoch(errors[learned[0] :])) if learned else (1.0, 1.0)
    assert schedule.factors(len(errors), by_epoch(errors), majority_error) == expected


def test_plateau_is_found_at_the_first_evaluation_after_the_patience():
    """Evaluate every second epoch with a patience of three: the last improvement is in epoch 4, the reduction after epoch 8."""
    config = TrainConfig(TINY, schedule=ReduceOnPlateau(patience=3, max_reductions=1), evaluate_every=2)
    errors = [None, 0.9, None, 0.8, None, 0.8, None, 0.8, None, 0.8, None, 0.8, None, 0.8]
    assert weights(config, errors) == [0.01] * 8 + [0.001] * 6 + [None]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=15), st.floats(0.5, 1), st.integers(1, 4), st.integers(1, 4))
def test_a_patience_of_several_intervals_counts_intervals(errors, majority_error, patience, every):
    """Evaluating every n-th epoch with n times the patience gives the rates of evaluating every epoch, for n epochs each."""
    spaced = {every * epoch: error for epoch, error in by_epoch(errors).items()}
    expected = ReduceOnPlateau(patience=patience).factors(len(errors), by_epoch(errors), majority_error)
    assert ReduceOnPlateau(patience=every * patience).factors(every * len(errors), spaced, majority_error) == expected


def test_fixed_schedules_do_not_depend_on_evaluations():
    for schedule in (StepDecay((2, 5)), StaircaseExponential(decay_epochs=8)):
        factors = [[schedule.factors(epoch, errors) for epoch in range(9)] for errors in ({}, {2: 0.5}, by_epoch([0.5] * 9))]
        assert factors[0] == factors[1] == factors[2]
        assert len(set(factors[0])) > 2


def test_plateaus_shorter_than_the_interval_of_evaluations_are_refused():
    config = TrainConfig(TINY, schedule=ReduceOnPlateau(patience=3), evaluate_every=3)
    config.check_evaluations()
    replace(config, schedule=StepDecay(), evaluate_every=100).check_evaluations()
    message = "--evaluate-every 4 is more than --patience 3, the epochs .*: pass --patience 4 or more, or another --schedule"
    with pytest.raises(UserError, match=message):
        replace(config, evaluate_every=4).check_evaluations()
