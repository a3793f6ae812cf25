"""Tests of the kernels and of training on the GPUs of this machine; skipped on machines without one."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alexnet_kernels
from alexnet_kernels.dispatch import unsupported_reason
from alexnet_kernels.specs import ALL_SPECS
from tests.conftest import process_environment

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
"""Maximum relative error, ||kernel - reference|| / ||reference||, by dtype."""


def values_and_gradient(op, x, g):
    y, vjp = jax.vjp(op, x)
    return y, vjp(g)[0]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("spec", ALL_SPECS, ids=str)
def test_kernel_values_and_gradients(spec, dtype, rng):
    """Compare with the float64 reference on the CPU, and check that two runs are bit-identical."""
    gpu = jax.devices("gpu")[0]
    if reason := unsupported_reason("triton", spec.op, jax.ShapeDtypeStruct(spec.shape, dtype), gpu, **spec.settings):
        pytest.skip(reason)
    op = partial(getattr(alexnet_kernels, spec.op), **spec.settings)
    x = np.asarray(jnp.asarray(rng.normal(0, 40, spec.shape), dtype))
    with jax.enable_x64(True):
        reference = partial(op, implementation="reference")
        y = jax.eval_shape(reference, jax.ShapeDtypeStruct(spec.shape, "float64"))
        g = np.asarray(jnp.asarray(rng.normal(size=y.shape), dtype))
        expected = jax.device_get(values_and_gradient(reference, jnp.asarray(x, "float64"), jnp.asarray(g, "float64")))
    with jax.default_device(gpu):
        run = jax.jit(partial(values_and_gradient, partial(op, implementation="triton")))
        first, second = (jax.device_get(run(jax.device_put(x, gpu), jax.device_put(g, gpu))) for _ in range(2))
    for ours, again, true in zip(first, second, expected, strict=True):
        np.testing.assert_array_equal(ours, again)
        assert np.linalg.norm(np.asarray(ours, np.float64) - true) <= TOLERANCE[dtype] * np.linalg.norm(true)


def start(photos, tmp_path, *arguments):
    environment = process_environment(platform=None) | {"XLA_FLAGS": ""}
    command = [
        sys.executable,
        "-m",
        "alexnet_jax",
        "train",
        "quickstart",
        "--data",
        str(photos),
        "--batch-size",
        "16",
        "--keep-schedule",
    ]
    command += ["--data-dir", str(tmp_path / "data"), "--run", str(tmp_path / "run"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def test_training_is_killed_and_resumed(photos, tmp_path):
    process = start(photos, tmp_path, "--epochs", "400", "--checkpoint-seconds", "1")
    deadline = time.monotonic() + 240
    while not any((tmp_path / "run" / "checkpoints").glob("[0-9]*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint after four minutes"
        time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    epochs = max(int(folder.name) for folder in (tmp_path / "run" / "checkpoints").glob("[0-9]*")) // 5 + 5
    process = start(photos, tmp_path, "--epochs", str(epochs))
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resuming at step" in output
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 5 * epochs
    assert "NVIDIA" in result["device"]
    assert np.isfinite(result["loss"])
