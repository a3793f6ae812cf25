"""Tests of the training loop: divergence, asynchronous metrics, number of compilations and implicit transfers."""

import os
from dataclasses import replace
from itertools import chain

import pytest

import alexnet_jax.training.loop
import alexnet_jax.training.setup
from alexnet_jax.parallel.distributed import Request
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.run_logger import RunLogger
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
def events(monkeypatch):
    """The order of events: "step" for a dispatched step, n for the logged metrics of step n."""
    events, make_train_step = [], alexnet_jax.training.setup.make_train_step

    def make(*args, **kwargs):
        jitted = make_train_step(*args, **kwargs)

        def step(state, *rest):
            events.append("step")
            return jitted(state, *rest)

        return step

    monkeypatch.setattr(alexnet_jax.training.setup, "make_train_step", make)
    monkeypatch.setattr(RunLogger, "log_steps", lambda logger, losses: events.extend(losses))
    monkeypatch.setattr(alexnet_jax.training.loop, "READ_INTERVAL_S", 0.0)
    return events


def test_losses_are_read_one_step_late(options, events):
    train("tiny", replace(TINY_CONFIG, epochs=1), options)
    assert events == ["step", *chain.from_iterable(("step", number) for number in range(1, 10)), 10]


@pytest.mark.parametrize("delay", [0, 1])
def test_losses_of_short_steps_are_read_together(delay, options, events, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.loop, "READ_INTERVAL_S", 60.0)
    train("tiny", replace(TINY_CONFIG, epochs=1), replace(options, loss_delay=delay))
    together, apart = ["step"] * 10 + list(range(1, 11)), list(chain.from_iterable(("step", number) for number in range(1, 11)))
    assert events == (together if delay else apart)


def test_losses_are_read_before_a_checkpoint_or_a_validation(options, events, monkeypatch):
    """Save after step 5, and read losses three steps late."""
    monkeypatch.setattr(alexnet_jax.training.loop, "RequestConsensus", lambda mesh, delay: SaveAfter(5))
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *args, **kwargs: (events.append("save"), save(*args, **kwargs))[1])
    train("tiny", replace(TINY_CONFIG, epochs=1), replace(options, loss_delay=3))
    first = ["step", "step", "step", "step", 1, "step", 2, 3, 4, 5, "save"]
    assert events == [*first, "step", "step", "step", "step", 6, "step", 7, 8, 9, 10, "save"]


@pytest.mark.parametrize("delay", [0, 4])
def test_late_loss_is_reported_with_its_step_and_deletes_later_checkpoints(delay, options, events, monkeypatch):
    """The parameters of step 11 are not finite, and saved before the loss of step 12 shows it."""
    monkeypatch.setattr(alexnet_jax.training.loop, "RequestConsensus", lambda mesh, delay: SaveAfter(11))
    config = replace(TINY_CONFIG, layer_rates=(LayerRate("fc7", after=1, weights=1e38),))
    message = "the training loss is (nan|inf) at step 12: .*the last good checkpoint is that of step 10"
    assert_train_raises(message, config, replace(options, loss_delay=delay))
    assert events.count("step") == 12 + delay
    checkpoints = os.listdir(next((options.runs_dir / "tiny").iterdir()) / "checkpoints")
    assert [step for step in checkpoints if step.isdecimal()] == ["10"]


class SaveAfter:
    """Replacement for `RequestConsensus` that requests a checkpoint after one step."""

    def __init__(self, step):
        self._remaining = step

    def __call__(self, request):
        self._remaining -= 1
        return request if self._remaining else Request.SAVE


def test_train_step_compiles_once(options, monkeypatch):
    """Check the number of compilations when the learning rate drops, a layer freezes, color noise ends and the run is resumed."""
    steps = []

    def make(*args, **kwargs):
        steps.append(make_train_step(*args, **kwargs))
        return steps[-1]

    monkeypatch.setattr(alexnet_jax.training.setup, "make_train_step", make)
    config = replace(
        TINY_CONFIG, schedule=StepDecay((1,)), layer_rates=(LayerRate("conv1", after=2, weights=0.0),), color_epochs=1
    )
    train("tiny", config, options, should_stop=StopAfter(15))
    train("tiny", config, options)
    assert [step._cache_size() for step in steps] == [1, 1]


def test_implicit_transfer_raises(options, monkeypatch):
    monkeypatch.setattr(alexnet_jax.training.loop, "put_batch", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train("tiny", TINY_CONFIG, options)
