"""Tests of the lines that a training prints without a terminal."""

import io
from types import SimpleNamespace

from rich.console import Console

from alexnet_jax.training import progress


def test_speed_and_remaining_time_are_printed_once_a_step_is_timed(monkeypatch):
    now, file = [0.0], io.StringIO()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    console = Console(file=file, width=120)
    training = progress.TrainingProgress(console, start=0, steps=100, steps_per_epoch=50, batch_size=32)
    for step in (1, 51):
        now[0] += 100
        training.advance(step, 1.5)
    assert file.getvalue().splitlines() == [
        "epoch 1/2  step 1/100  loss 1.500",
        "epoch 2/2  step 51/100  loss 1.500  16 images/s  1:38 left",
    ]
