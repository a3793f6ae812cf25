"""Tests of the options of `train` and `schedule` that change the number of epochs and the schedule."""

import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import alexnet_jax.training.train
from alexnet_jax.cli import main as cli
from alexnet_jax.cli import train as train_command
from alexnet_jax.cli.schedule_options import ScheduleOptions
from alexnet_jax.configs import config_names, load_config
from alexnet_jax.errors import UserError
from alexnet_jax.training.config import Options, TrainConfig
from alexnet_jax.training.open_run import open_run
from alexnet_jax.training.result import TrainResult
from alexnet_jax.training.run_config import DataRecord, RunConfig
from alexnet_jax.training.schedule import (
    Factors,
    LayerRate,
    LearningRateSchedule,
    ReduceOnPlateau,
    StaircaseExponential,
    StepDecay,
)
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG
from tests.tiny import TINY

SOURCE = load_config("source_145")
RATES = (LayerRate("conv1", after=9, weights=1e-5), LayerRate("conv1", after=9, weights=0.0, biases=0.0))
SCALED = replace(SOURCE, epochs=12, schedule=StepDecay((3, 7, 10), ()), layer_rates=RATES, color_epochs=9)
REST = "learning rate of conv1 after epoch 9; color shifts until epoch 9 (--keep-schedule does not scale it)"


@pytest.mark.parametrize("name", config_names())
def test_without_options_a_config_stays_as_it_is(name):
    config = load_config(name)
    assert ScheduleOptions().apply(config) == config
    assert ScheduleOptions(epochs=config.epochs).apply(config) == config
    assert ScheduleOptions(epochs=config.epochs).notes(config) == []
    assert ScheduleOptions.of(config).apply(config) == config, "the defaults that the help shows"


@pytest.mark.parametrize(
    ("options", "expected", "notes"),
    [
        (ScheduleOptions(12), SCALED, [f"schedule scaled from 91 to 12 epochs: milestones 3 7 10; {REST}"]),
        (
            ScheduleOptions(12, keep_schedule=True),
            replace(SOURCE, epochs=12),
            [
                "not reached in 12 epochs: milestones 25 51 79; learning rate of conv1 after epoch 67 72; "
                "color shifts until epoch 67"
            ],
        ),
        (
            ScheduleOptions(12, milestones=(5, 40), color_epochs=12),
            replace(SCALED, schedule=StepDecay((5, 40), ()), color_epochs=12),
            [
                "schedule scaled from 91 to 12 epochs: learning rate of conv1 after epoch 9 (--keep-schedule does not scale it)",
                "not reached in 12 epochs: milestones 40",
            ],
        ),
        (ScheduleOptions(milestones=(40, 70)), replace(SOURCE, schedule=StepDecay((40, 70), ())), []),
        (ScheduleOptions(bias_milestones=(40,)), replace(SOURCE, schedule=StepDecay((25, 51, 79), (40,))), []),
        (ScheduleOptions(min_delta=0.01), replace(SOURCE, schedule=ReduceOnPlateau(min_delta=0.01)), []),
        (
            ScheduleOptions(schedule="staircase-exponential"),
            replace(SOURCE, schedule=StaircaseExponential(decay_epochs=91)),
            [],
        ),
    ],
)
def test_options_change_the_schedule_and_say_so(options, expected, notes):
    assert options.apply(SOURCE) == expected
    assert options.notes(SOURCE) == notes


def test_plateau_schedule_has_no_epochs_to_move():
    config = load_config("two_tower")
    assert ScheduleOptions(30).apply(config) == replace(config, epochs=30)
    assert ScheduleOptions(30).notes(config) == []
    assert ScheduleOptions(milestones=(40, 70)).apply(config) == replace(config, schedule=StepDecay((40, 70)))
    assert ScheduleOptions(30, schedule="step-decay").apply(config).schedule == StepDecay((8, 17, 26))


@pytest.fixture
def trained_config(monkeypatch, tmp_path):
    """Return a function that runs `train` for a config file with other arguments, and returns the config that is trained."""
    configs: list[TrainConfig] = []
    monkeypatch.setattr(train_command, "configure_training", lambda *_: None)
    monkeypatch.setattr(train_command, "train_with_report", lambda name, config, options: configs.append(config) or tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(
        "from alexnet_jax.training.schedule import StepDecay\nfrom alexnet_jax.training.config import TrainConfig\n"
        "from tests.tiny import TINY\nCONFIG = TrainConfig(TINY, epochs=8, schedule=StepDecay((4, 6)))\n"
    )

    def run(*arguments: str) -> TrainConfig:
        monkeypatch.setattr(sys, "argv", ["alexnet-jax", "train", str(file), *arguments])
        cli.main()
        return configs[-1]

    return run


def test_train_follows_the_options(trained_config, capsys):
    assert trained_config().schedule == StepDecay((4, 6))
    assert not capsys.readouterr().err
    config = trained_config("--epochs", "4")
    assert (config.epochs, config.schedule) == (4, StepDecay((2, 3)))
    assert capsys.readouterr().err.startswith("schedule scaled from 8 to 4 epochs: milestones 2 3 (")
    assert trained_config("--milestones", "2", "5", "--batch-size", "16").schedule == StepDecay((2, 5))


def test_keep_schedule_keeps_that_of_the_run(trained_config, tmp_path):
    other = TrainConfig(TINY, epochs=3, schedule=StepDecay((1, 2)))
    record = RunConfig(TINY, other.augmentation, DataRecord("data", {}, ["a"] * 7), other)
    run = tmp_path / "run"
    with_run = ("--epochs", "6", "--keep-schedule", "--run", str(run))
    assert trained_config(*with_run).schedule == StepDecay((4, 6)), "there is no run yet"
    open_run(run, record, Options()).close()
    assert trained_config(*with_run).schedule == StepDecay((1, 2))
    assert trained_config(*with_run, "--fresh").schedule == StepDecay((4, 6))


def test_longer_training_with_a_scaled_schedule_is_never_silent(options, monkeypatch, capsys):
    monkeypatch.setattr(alexnet_jax.training.train, "run_loop", lambda context, _: TrainResult(context.run.folder, True, 0, None))

    def messages(config, **changes):
        folder = train("tiny", config, replace(options, **changes)).run
        return folder, " ".join(capsys.readouterr().err.split())

    short = replace(TINY_CONFIG, epochs=2, schedule=StepDecay((1,)))
    folder, _ = messages(short)
    metrics = {"top1_error": 0.5, "top5_error": None, "loss": 1.0, "images": 22, "split": "validation"}
    result = {
        "config": "tiny",
        "epochs": 2,
        "steps": 20,
        "ended_by_schedule": False,
        "images_per_second": 0,
        "seconds": 1.0,
        **metrics,
    }
    (folder / "result.json").write_text(json.dumps(result))
    assert f"or a larger --epochs with --run {folder} --keep-schedule to continue." in messages(short)[1]
    other, text = messages(short.with_epochs(4))
    assert other != folder
    assert f"new run, because the schedule of {folder} is for another number of epochs" in text
    assert f"pass --run {folder} --keep-schedule" in text
    assert "new run" not in messages(replace(short, seed=1).with_epochs(4))[1], "another seed is another training anyway"
    assert messages(replace(short, epochs=4), run=folder)[0] == folder


def test_run_with_another_schedule_is_named(tmp_path):
    def record(**changes):
        config = replace(TINY_CONFIG, **{"epochs": 2, "schedule": StepDecay((1,)), **changes})
        return RunConfig(TINY, config.augmentation, DataRecord("data", {}, ["a"] * 7), config)

    open_run(tmp_path / "run", record(), Options()).close()
    for differences, advice in (
        (
            {"schedule": StepDecay((2,))},
            "--fresh to start over, --keep-schedule to continue with its schedule, or --change-settings",
        ),
        ({"schedule": StepDecay((2,)), "seed": 1}, "--fresh to start over, or --change-settings"),
    ):
        with pytest.raises(UserError, match=advice):
            open_run(tmp_path / "run", record(epochs=4, **differences), Options())


@dataclass(frozen=True)
class Cosine(LearningRateSchedule):
    warmup: int = 2

    def factors(self, epochs, errors, majority_error=math.inf):
        factor = 0.5 + 0.5 * math.cos(epochs)
        return Factors(factor, factor)


def test_own_schedule_is_stored_and_has_no_options(monkeypatch):
    config = replace(load_config("quickstart"), schedule=Cosine(3))
    assert ScheduleOptions(epochs=4).apply(config) == replace(config, epochs=4)
    assert ScheduleOptions(milestones=(1, 2)).apply(config).schedule == StepDecay((1, 2))
    assert ScheduleOptions.of(config).schedule is None
    data = DataRecord("", {}, ["class"] * config.network.num_classes)
    record = json.loads(json.dumps(RunConfig(config.network, config.augmentation, data, config).to_json()))
    training = RunConfig.from_json(record, Path("run")).training
    assert training is not None
    assert training.schedule == Cosine(3)
    monkeypatch.delitem(LearningRateSchedule.registry.classes, "cosine")
    with pytest.raises(UserError, match="there is no schedule cosine: if it is your own, import the module that defines it"):
        RunConfig.from_json(record, Path("run"))
