"""Tests that settings out of range are refused before anything is written, from Python and from the command line."""

import os
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.analysis.examples import ExampleOptions
from alexnet_jax.cli import main as cli
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.transforms import PCAColor, RandomCrop, RandomFlip
from alexnet_jax.data.prepare.convert import PrepareOptions
from alexnet_jax.errors import UserError, check_number
from alexnet_jax.model.summary import LayerSummary
from alexnet_jax.parallel.distributed import DistributedOptions
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.schedule import LayerRate, ReduceOnPlateau, StaircaseExponential, StepDecay
from tests.conftest import TINY_CONFIG
from tests.tiny import TINY

COMMAND_LINES = [
    ("--batch-size 0", "--batch-size must be at least 1, not 0"),
    ("--batch-size -8", "--batch-size must be at least 1, not -8"),
    ("--devices 0", "--devices must be at least 1, not 0"),
    ("--epochs 0", "--epochs must be at least 1 and at most 1000000, not 0"),
    ("--epochs -1", "--epochs must be at least 1 and at most 1000000, not -1"),
    ("--seed -1", "--seed must be at least 0 and at most 4294967295, not -1"),
    ("--seed 9223372036854775808", "--seed must be at least 0 and at most 4294967295, not 9223372036854775808"),
    ("--workers -1", "--workers must be at least 0, not -1"),
    ("--threads 0", "--threads must be at least 1, not 0"),
    ("--learning-rate nan", "--learning-rate must be at least 0 and finite, not nan"),
    ("--momentum 1", "--momentum must be at least 0 and less than 1, not 1.0"),
    ("--weight-decay -0.1", "--weight-decay must be at least 0, not -0.1"),
    ("--loss-delay -1", "--loss-delay must be at least 0, not -1"),
    ("--checkpoint-seconds -1", "--checkpoint-seconds must be at least 0, not -1.0"),
    ("--color-epochs -1", "--color-epochs must be at least 0, not -1"),
    ("--patience 0", "--patience must be at least 1, not 0"),
    ("--milestones 3 -1", "--milestones must be at least 1, not -1"),
    ("--patience 2 --milestones 3", "--patience is for reduce-on-plateau, --milestones for step-decay"),
    ("--schedule step-decay --num-levels 3", "--num-levels is for staircase-exponential, --schedule for step-decay"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), COMMAND_LINES, ids=lambda value: value)
def test_command_line_prints_one_line_and_leaves_nothing(arguments, message, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", "train", "quickstart", "--data", str(photos), *arguments.split()])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code in (1, 2)
    output = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in output
    assert "Traceback" not in output
    assert os.listdir(tmp_path) == []


below_one, negative = st.integers(max_value=0), st.floats(max_value=-1e-9) | st.just(float("nan")) | st.just(float("inf"))
INVALID = {
    "epochs": (lambda value: replace(TINY_CONFIG, epochs=value), below_one),
    "batch size": (lambda value: replace(TINY_CONFIG, batch_size=value), below_one),
    "seed": (lambda value: replace(TINY_CONFIG, seed=value), st.integers(max_value=-1) | st.integers(min_value=2**32)),
    "learning rate": (lambda value: replace(TINY_CONFIG, learning_rate=value), negative),
    "bias rate": (lambda value: replace(TINY_CONFIG, bias_rate=value), negative),
    "weight decay": (lambda value: replace(TINY_CONFIG, weight_decay=value), negative),
    "momentum": (lambda value: replace(TINY_CONFIG, momentum=value), negative | st.floats(min_value=1)),
    "interval of evaluations": (lambda value: replace(TINY_CONFIG, evaluate_every=value), below_one),
    "evaluated images": (lambda value: replace(TINY_CONFIG, evaluate_images=value), below_one),
    "color epochs": (lambda value: replace(TINY_CONFIG, color_epochs=value), st.integers(max_value=-1)),
    "devices": (lambda value: Options(devices=value), below_one),
    "threads": (lambda value: Options(threads=value), below_one),
    "workers": (lambda value: Options(workers=value), st.integers(max_value=-1)),
    "loss delay": (lambda value: Options(loss_delay=value), st.integers(max_value=-1)),
    "checkpoint seconds": (lambda value: Options(checkpoint_seconds=value), negative),
    "patience": (lambda value: ReduceOnPlateau(patience=value), below_one),
    "improvement": (lambda value: ReduceOnPlateau(min_delta=value), negative),
    "reductions": (lambda value: ReduceOnPlateau(max_reductions=value), st.integers(max_value=-1)),
    "milestones": (lambda value: StepDecay((1, value)), below_one),
    "bias milestones": (lambda value: StepDecay((1,), (value,)), below_one),
    "levels": (lambda value: StaircaseExponential(num_levels=value), below_one),
    "levels of biases": (lambda value: StaircaseExponential(bias_num_levels=value), below_one),
    "epochs of decay": (lambda value: StaircaseExponential(decay_epochs=value), below_one),
    "decay factor of biases": (lambda value: StaircaseExponential(bias_decay_factor=value), negative | st.just(0.0)),
    "decay factor": (lambda value: StaircaseExponential(decay_factor=value), negative | st.just(0.0)),
    "examples": (lambda value: ExampleOptions(nearest=value), below_one),
}


@pytest.mark.parametrize("name", INVALID)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_values_out_of_range_are_refused(name, data):
    construct, values = INVALID[name]
    with pytest.raises(UserError, match=r"^--[a-z-]+ must be .*, not "):
        construct(data.draw(values))


def test_values_at_the_end_of_the_range_are_accepted():
    TrainConfig(TINY, epochs=1, batch_size=1, learning_rate=0.0, bias_rate=0.0, momentum=0.0, weight_decay=0.0, color_epochs=0)
    TrainConfig(TINY, seed=2**32 - 1)
    Options(devices=1, threads=1, workers=0, checkpoint_seconds=0.0, loss_delay=0)
    ReduceOnPlateau(patience=1, min_delta=0.0, max_reductions=0)
    StepDecay(milestones=(1,), bias_milestones=(1,))
    StaircaseExponential(num_levels=1, bias_num_levels=1, decay_epochs=1)
    PCAColor(std=0.0)


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_check_number_accepts_exactly_the_range(value, low, high):
    for limits, allowed in (
        ({"at_least": low, "below": high}, low <= value < high), ({"above": low, "at_most": high}, low < value <= high),
    ):  # fmt: skip
        if allowed:
            check_number("--x", value, **limits)
        else:
            with pytest.raises(UserError):
                check_number("--x", value, **limits)


@pytest.mark.parametrize(
    "options",
    [
        {"held_out": 1.0}, {"held_out": 2.0}, {"held_out": -0.1}, {"held_out": float("nan")},
        {"size": 0}, {"size": 1 << 15}, {"threads": 0}, {"max_bad": -1}, {"seed": -1},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_prepare_are_checked(options):
    (name,) = options
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be at least"):
        PrepareOptions(**options)


def test_defaults_of_options():
    """Compare with the defaults of the documentation; those of `TrainConfig` are in test_published_settings.py."""
    assert vars(Options()) == {
        "data": None, "classes": (), "data_dir": Path("data"), "runs_dir": Path("runs"), "run": None, "fresh": False,
        "change_settings": False, "placement": "auto", "devices": None, "tune": "auto", "threads": None, "workers": 0,
        "checkpoint_seconds": 120.0, "loss_delay": None, "shard_update": False, "tensorboard": False,
        "processes": DistributedOptions(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        TINY, TrainConfig(TINY), Options(), Augmentation(), RandomCrop(), RandomFlip(), PCAColor(), ReduceOnPlateau(),
        StepDecay(), StaircaseExponential(), LayerRate("conv1", 1, 0.0), LayerSummary("conv1", (1,), 1, "own", 1, 1, 1, 0),
    ],
    ids=lambda settings: type(settings).__name__,
)  # fmt: skip
def test_settings_and_results_cannot_be_changed(settings):
    with pytest.raises(FrozenInstanceError):
        setattr(settings, fields(settings)[0].name, None)
