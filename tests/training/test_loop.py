"""The loop of a training keeps out of the way of the device, and ends when there is nothing left to learn from."""

import os
from dataclasses import replace

import pytest

import alexnet_jax.training.loop
from alexnet_jax.training.loop import train
from alexnet_jax.training.schedule import LayerRate, StepDecay
from alexnet_jax.training.step import make_train_step
from tests.conftest import TINY_CONFIG, Stop, refused


def test_a_loss_that_explodes_is_named_by_its_step(options):
    refused(
        r"the loss is (nan|inf) at step [23]: choose a lower --learning-rate.*there is no checkpoint yet",
        replace(TINY_CONFIG, learning_rate=1e30),
        options,
    )


def test_a_loss_that_explodes_later_leaves_the_last_good_checkpoint(options, capsys):
    """Saved after every step, so that one checkpoint is written before its loss is known."""
    exploding = (LayerRate("fc7", after=1, weights=1e38),)
    experiment = replace(TINY_CONFIG, layer_rates=exploding)
    saving = replace(options, checkpoint_seconds=0.0)
    for _ in range(2):  # the same command comes to the same end, from the checkpoint that is left
        refused("the loss is (nan|inf) at step 12: .*the last good checkpoint, of step 10, is kept", experiment, saving)
        folder = next((options.runs_dir / "tiny").iterdir())
        assert "10" in os.listdir(folder / "checkpoints")
        assert "11" not in os.listdir(folder / "checkpoints")
    assert "resuming at step 10" in capsys.readouterr().err


@pytest.fixture
def steps(monkeypatch):
    """The jitted steps that trainings make, and what happens in order: steps taken, losses read."""
    made, events = [], []

    def make(*arguments, **settings):
        jitted = make_train_step(*arguments, **settings)
        made.append(jitted)

        def step(state, *rest):
            events.append("step")
            return jitted(state, *rest)

        return step

    read = alexnet_jax.training.loop.Training._read_measured
    monkeypatch.setattr(alexnet_jax.training.loop, "make_train_step", make)
    monkeypatch.setattr(
        alexnet_jax.training.loop.Training,
        "_read_measured",
        lambda self, step, measured: (events.append(step), read(self, step, measured)),
    )
    return made, events


def test_a_loss_is_read_when_the_next_step_is_under_way(options, steps):
    train("tiny", replace(TINY_CONFIG, epochs=1), options)
    assert steps[1] == [
        "step",
        "step",
        1,
        "step",
        2,
        "step",
        3,
        "step",
        4,
        "step",
        5,
        "step",
        6,
        "step",
        7,
        "step",
        8,
        "step",
        9,
        10,
    ]


def test_one_program_serves_the_whole_training(options, steps, monkeypatch):
    """Through a cut, a layer frozen, colors gone, and a stop."""
    experiment = replace(
        TINY_CONFIG, schedule=StepDecay((1,)), layer_rates=(LayerRate("conv1", after=2, weights=0.0),), color_epochs=1
    )
    monkeypatch.setattr(alexnet_jax.training.loop, "StopOnSignal", lambda: Stop(15))
    train("tiny", experiment, options)
    train("tiny", experiment, options)
    assert [step._cache_size() for step in steps[0]] == [1, 1]


def test_a_transfer_that_slips_in_ends_training(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.loop, "put_batch", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train("tiny", TINY_CONFIG, options)
