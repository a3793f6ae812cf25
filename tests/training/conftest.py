"""Fixtures of the tests of the choice of the form of the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.parallel.gradients import GradientSum
from alexnet_jax.training import step_trials, tuning
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.run_directory import RunDirectory
from alexnet_jax.training.step import TrainState
from alexnet_jax.training.step_trials import TuningTask
from tests.tiny import TINY
from tests.training.stub_steps import ALTERNATIVES, DEFAULT, Steps


@pytest.fixture
def steps(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stub = Steps()
    monkeypatch.setattr(step_trials, "time", stub)
    monkeypatch.setattr(step_trials, "ROUND_S", 0.0)
    monkeypatch.setattr(tuning, "measure_matmul_flops", lambda *_: 1e12)
    monkeypatch.setattr(tuning, "training_flops_per_image", lambda _: 1e9)
    params = {name: {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)} for name in ("conv1", "fc7")}

    def initial_state(network, mesh, optimizer, seed):
        return TrainState(jnp.zeros((), jnp.int32), jax.device_put(params), optimizer.init(params))

    monkeypatch.setattr(step_trials, "initial_state", initial_state)
    return stub


@pytest.fixture
def task(steps):
    return TuningTask(
        network=TINY,
        optimizer=paper_update(),
        precision="float32",
        gradient_sum=GradientSum(),
        batch_size=8,
        mean=np.zeros((29, 29, 3), np.float32),
        crop_mean=True,
        requested_placement="auto",
        default=DEFAULT,
        alternatives=ALTERNATIVES,
        make_step=steps.make_step,
    )


@pytest.fixture
def run(tmp_path):
    folder = RunDirectory(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    folder.write("config.json", {})
    return folder
