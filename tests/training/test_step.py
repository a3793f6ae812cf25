"""Tests of the training step and the evaluation step."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import replicated
from alexnet_jax.training.evaluation_step import make_evaluation_step
from alexnet_jax.training.optimizer import learning_rates, paper_update
from alexnet_jax.training.step import (
    Bfloat16TrainState,
    StepHparams,
    constant_hparams,
    for_precision,
    initial_state,
    is_top1_error,
    make_train_step,
    put_batch,
)
from tests.conftest import TINY, cpu_mesh

MESH = cpu_mesh(TINY, 1, split=True)
SIZE = TINY.input_size


@pytest.fixture(scope="module")
def step():
    return make_train_step(TINY, MESH, paper_update(), seed=0)


new_state = partial(initial_state, TINY, MESH, paper_update(), 0)


def batch(shift=0.0):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    return put_batch(Example(images, rng.integers(0, 7, 8).astype(np.int32), np.full((8, 3), shift, np.float32)), MESH)


def replicate(value):
    return jax.device_put(value, replicated(MESH))


MEAN = np.full((SIZE, SIZE, 3), 120, np.float32)


def test_changing_hparams_does_not_recompile(step):
    state, mean = new_state(), replicate(MEAN)
    frozen = learning_rates(state.params, 1e-3, 2e-3, {"conv1": (0.0, 0.0)})
    epochs = [constant_hparams(state, 1e-2), constant_hparams(state, 1e-3), StepHparams(frozen, np.bool_(False))]
    conv1_kernels = []
    for hparams in map(replicate, epochs):
        state, _ = step(state, batch(), mean, hparams)
        conv1_kernels.append(jax.device_get(state.params["conv1"]["kernel"]))
    assert step._cache_size() == 1
    assert (conv1_kernels[0] != conv1_kernels[1]).any()
    np.testing.assert_array_equal(conv1_kernels[1], conv1_kernels[2])


def test_optimizer_with_factored_state():
    """Check an optimizer without extra arguments, whose state has arrays [1] that the towers do not divide."""
    optimizer = optax.chain(optax.scale_by_factored_rms(), optax.scale(-1e-3))
    state = initial_state(TINY, MESH, optimizer, 0)
    before, hparams = jax.device_get(state.params), replicate(constant_hparams(state, 1.0))
    state, _ = make_train_step(TINY, MESH, optimizer, seed=0)(state, batch(), replicate(MEAN), hparams)
    # The first update divides each gradient by its absolute value.
    changes = np.abs(jax.device_get(state.params["fc7"]["bias"]) - before["fc7"]["bias"]).ravel()[:7]
    np.testing.assert_allclose(changes, 1e-3, rtol=1e-3)


def test_evaluation_sums_equal_numpy():
    """Compare with sums in NumPy; images with a negative label are not counted."""
    params = jax.tree.map(lambda w: 3 * w, new_state().params)  # for logits that are far apart
    images, labels = np.asarray(batch().image), np.array([0, 6, 2, -1, 4, 1, -1, 3], np.int32)
    example = put_batch(Example(images, labels, np.zeros((8, 3), np.float32)), MESH)
    outputs = jax.device_get(make_evaluation_step(TINY, MESH)(params, example, replicate(MEAN)))
    sums = outputs.sums
    np.testing.assert_array_equal(outputs.labels, labels)
    logits = np.asarray(jax.jit(placement.forward(TINY, MESH))(params, images - MEAN, None), np.float64)[labels >= 0]
    shifted, labels = logits - logits.max(1, keepdims=True), labels[labels >= 0]
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(6), labels]
    ranks = (logits > logits[np.arange(6), labels][:, None]).sum(1)
    np.testing.assert_array_equal(outputs.predictions[outputs.labels >= 0], logits.argmax(1))
    np.testing.assert_allclose(sums.loss, losses.sum(), rtol=1e-5)
    assert (sums.images, sums.top1_errors, sums.top5_errors) == (6, (ranks >= 1).sum(), (ranks >= 5).sum())
    assert losses.max() > 5


@pytest.mark.parametrize("split", [False, True], ids=["one device", "two devices"])
def test_nan_in_any_layer_reaches_the_loss(split):
    mesh = cpu_mesh(TINY, 1, split=split)
    train_step, evaluation_step = make_train_step(TINY, mesh, paper_update(), seed=0), make_evaluation_step(TINY, mesh)
    mean = jax.device_put(MEAN, replicated(mesh))
    example = put_batch(jax.device_get(batch()), mesh)
    for name in new_state().params:
        for kind in ("kernel", "bias"):
            state = initial_state(TINY, mesh, paper_update(), 0)
            layer = state.params[name]
            array = layer[kind].at[(0,) * layer[kind].ndim].set(np.nan)
            params = {**state.params, name: {**layer, kind: jax.device_put(array, layer[kind].sharding)}}
            assert np.isnan(evaluation_step(params, example, mean).sums.loss), (name, kind)
            hparams = jax.device_put(constant_hparams(state, 0.0), replicated(mesh))
            _, metrics = train_step(replace(state, params=params), example, mean, hparams)
            assert np.isnan(metrics.loss), (name, kind)


@pytest.mark.parametrize(
    ("logits", "errors"),
    [
        ([[3.0, 1.0, 2.0]], [0, 1, 1]),
        ([[1.0, 1.0, 1.0]], [1, 1, 1]),
        ([[2.0, 2.0, 1.0]], [1, 1, 1]),
        ([[np.nan, 1.0, 2.0]], [1, 1, 1]),
        ([[-np.inf, 0.0, -1.0]], [1, 0, 1]),
    ],
)
def test_ties_and_nans_are_top1_errors(logits, errors):
    assert [int(is_top1_error(jnp.float32(logits), jnp.array([label]))[0]) for label in range(3)] == errors


def test_bfloat16_is_used_for_activations_only():
    """Check that parameters, optimizer state and metrics are float32, and that the loss is close to the float32 loss."""
    state, mean, hparams = for_precision(new_state(), "bfloat16"), replicate(MEAN), replicate(constant_hparams(new_state(), 1e-3))
    bfloat16_step = make_train_step(TINY, MESH, paper_update(), seed=0, precision="bfloat16")
    assert "bf16" in bfloat16_step.lower(state, batch(), mean, hparams).as_text()  # type: ignore[reportFunctionMemberAccess]
    sums = [
        jax.device_get(make_evaluation_step(TINY, MESH, precision=precision)(state.params, batch(), mean).sums)
        for precision in ("float32", "bfloat16")
    ]
    assert sums[0].loss != sums[1].loss
    np.testing.assert_allclose(sums[0].loss, sums[1].loss, rtol=0.05)
    state, metrics = bfloat16_step(state, batch(), mean, hparams)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state, metrics))} == {np.dtype(np.float32)}
    assert isinstance(state, Bfloat16TrainState)
    for_next_step = jax.tree.map(lambda w: w.astype(jnp.bfloat16), state.params)
    jax.tree.map(np.testing.assert_array_equal, state.rounded_params, for_next_step)


@pytest.mark.parametrize("split", [False, True], ids=["two devices", "a tower on each of two devices"])
def test_rounded_parameters_have_the_gradients_of_a_cast(split):
    """Check the values, and that gradients are summed over devices in float32."""
    mesh = cpu_mesh(TINY, 1 if split else 2, split=split)
    params, images = placement.init(TINY, mesh, jax.random.key(0)), jnp.asarray(batch().image, jnp.bfloat16)
    forward = placement.forward(TINY, mesh)

    @jax.jit
    def loss_and_gradients(params, rounded_params):
        return jax.value_and_grad(lambda params: forward(params, images, jax.random.key(1), rounded_params).sum())(params)

    rounded = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    expected = loss_and_gradients(params, None)
    assert {leaf.dtype for leaf in jax.tree.leaves(expected[1])} == {np.dtype(np.float32)}
    jax.tree.map(np.testing.assert_array_equal, loss_and_gradients(jax.tree.map(jnp.zeros_like, params), rounded), expected)


def test_images_without_color_shift_are_not_divided(step):
    state, shifted = new_state(), batch(shift=30.0)
    rates = learning_rates(state.params, 1e-2)
    on, off = (StepHparams(rates, np.bool_(color), np.float32(1.1)) for color in (True, False))
    expected = float(step(new_state(), batch(), MEAN, constant_hparams(state, 1e-2))[1].loss)
    np.testing.assert_allclose(float(step(new_state(), shifted, MEAN, off)[1].loss), expected, rtol=1e-6)
    assert abs(float(step(new_state(), shifted, MEAN, on)[1].loss) / expected - 1) > 1e-3
    divided = float(step(new_state(), batch(), MEAN, on)[1].loss)
    assert abs(divided / expected - 1) > 1e-3, "images are divided even if their shifts are 0"
