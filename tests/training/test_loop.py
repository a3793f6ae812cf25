"""Tests of the training loop: divergence, asynchronous metrics, number of compilations and implicit transfers."""

import os
from dataclasses import replace

import pytest

import alexnet_jax.training.loop
import alexnet_jax.training.setup
from alexnet_jax.training.schedule import LayerRate, StepDecay
from alexnet_jax.training.step import make_train_step
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, StopAfter, assert_train_raises


def test_non_finite_loss_raises_with_step(options):
    assert_train_raises(
        r"the training loss is (nan|inf) at step [23]: choose a lower --learning-rate.*no checkpoint was saved",
        replace(TINY_CONFIG, learning_rate=1e30),
        options,
    )


def test_divergence_keeps_last_good_checkpoint(options, capsys):
    """Save after every step, so that the last checkpoint is written before the loss of its parameters is known."""
    diverging = (LayerRate("fc7", after=1, weights=1e38),)
    config = replace(TINY_CONFIG, layer_rates=diverging)
    saving = replace(options, checkpoint_seconds=0.0)
    for _ in range(2):  # the second run resumes from the last good checkpoint and diverges again
        assert_train_raises(
            "the training loss is (nan|inf) at step 12: .*the last good checkpoint is that of step 10", config, saving
        )
        folder = next((options.runs_dir / "tiny").iterdir())
        assert "10" in os.listdir(folder / "checkpoints")
        assert "11" not in os.listdir(folder / "checkpoints")
    assert "resuming at step 10" in capsys.readouterr().err


@pytest.fixture
def steps(monkeypatch):
    """Jitted train steps and the order of events: "step" for a dispatched step, n for the logged metrics of step n."""
    jitted_steps, events = [], []

    def make(*args, **kwargs):
        jitted = make_train_step(*args, **kwargs)
        jitted_steps.append(jitted)

        def step(state, *rest):
            events.append("step")
            return jitted(state, *rest)

        return step

    log_step = alexnet_jax.training.loop._log_step
    monkeypatch.setattr(alexnet_jax.training.setup, "make_train_step", make)
    monkeypatch.setattr(
        alexnet_jax.training.loop, "_log_step", lambda step, *rest: (events.append(step), log_step(step, *rest))[1]
    )
    return jitted_steps, events


def test_metrics_are_fetched_one_step_late(options, steps):
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


def test_train_step_compiles_once(options, steps):
    """Check the number of compilations when the learning rate drops, a layer freezes, color noise ends and the run is resumed."""
    config = replace(
        TINY_CONFIG, schedule=StepDecay((1,)), layer_rates=(LayerRate("conv1", after=2, weights=0.0),), color_epochs=1
    )
    train("tiny", config, options, should_stop=StopAfter(15))
    train("tiny", config, options)
    assert [step._cache_size() for step in steps[0]] == [1, 1]


def test_implicit_transfer_raises(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.loop, "put_batch", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train("tiny", TINY_CONFIG, options)
