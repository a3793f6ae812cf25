"""The training step: what changes between epochs changes numbers and compiles nothing."""

from functools import partial

import jax
import numpy as np
import pytest

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.parallel.mesh import replicated
from alexnet_jax.training.optimizer import learning_rates, paper_update
from alexnet_jax.training.step import (
    StepHparams,
    TrainState,
    constant_hparams,
    initial_state,
    make_evaluation_step,
    make_train_step,
    put_batch,
)
from tests.conftest import TINY, mesh_of

MESH = mesh_of(TINY, 1, split=True)
SIZE = TINY.input_size


@pytest.fixture(scope="module")
def step():
    return make_train_step(TINY, MESH, paper_update(), seed=0, color_divisor=1.1)


start = partial(initial_state, TINY, MESH, paper_update(), 0)


def batch(shift=0.0):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    return put_batch(Example(images, rng.integers(0, 7, 8).astype(np.int32), np.full((8, 3), shift, np.float32)), MESH)


def on_devices(value):
    return jax.device_put(value, replicated(MESH))


MEAN = np.full((SIZE, SIZE, 3), 120, np.float32)


def test_cuts_freezing_and_colors_compile_nothing(step):
    state, mean = start(), on_devices(MEAN)
    frozen = learning_rates(state.params, 1e-3, 2e-3, {"conv1": (0.0, 0.0)})
    settings = [constant_hparams(state, 1e-2), constant_hparams(state, 1e-3), StepHparams(frozen, np.bool_(False))]
    conv1 = []
    for hparams in map(on_devices, settings):
        state = TrainState(state.step, state.params, jax.tree.map(lambda v: v * 0, state.opt_state))
        state, _ = step(state, batch(), mean, hparams)
        conv1.append(jax.device_get(state.params["conv1"]["kernel"]))
    assert step._cache_size() == 1
    assert (conv1[0] != conv1[1]).any()
    np.testing.assert_array_equal(conv1[1], conv1[2])


def test_bfloat16_is_for_activities_alone():
    """Parameters and velocity stay float32, and what is computed is not what float32 would give, but near it."""
    state, mean, hparams = start(), on_devices(MEAN), on_devices(constant_hparams(start(), 1e-3))
    half = make_train_step(TINY, MESH, paper_update(), seed=0, precision="bfloat16")
    assert "bf16" in half.lower(state, batch(), mean, hparams).as_text()  # type: ignore[reportFunctionMemberAccess]
    scores = [
        jax.device_get(make_evaluation_step(TINY, MESH, precision=precision)(state.params, batch(), mean))
        for precision in ("float32", "bfloat16")
    ]
    assert scores[0].loss != scores[1].loss
    np.testing.assert_allclose(scores[0].loss, scores[1].loss, rtol=0.05)
    state, measured = half(state, batch(), mean, hparams)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state, measured))} == {np.dtype(np.float32)}


def test_without_color_noise_images_are_neither_shifted_nor_divided(step):
    plain = make_train_step(TINY, MESH, paper_update(), seed=0)
    state, shifted = start(), batch(shift=30.0)
    on, off = (StepHparams(learning_rates(state.params, 1e-2), np.bool_(color)) for color in (True, False))
    expected = float(plain(start(), batch(), MEAN, on)[1].loss)
    np.testing.assert_allclose(float(step(start(), shifted, MEAN, off)[1].loss), expected, rtol=1e-6)
    assert abs(float(step(start(), shifted, MEAN, on)[1].loss) / expected - 1) > 1e-3
