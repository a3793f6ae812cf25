"""Tests of the forms of the sum of gradients over devices, and of the update of a part of every parameter per device."""

import re
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.model.layers import Conv, Dense, Dropout, ReLU
from alexnet_jax.model.network import Network
from alexnet_jax.parallel.gradients import GradientSum, update_sharding
from alexnet_jax.parallel.mesh import DATA, parameter_sharding, replicated
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import (
    Bfloat16TrainState,
    Precision,
    constant_hparams,
    for_precision,
    initial_state,
    make_train_step,
    put_batch,
    state_shardings,
)
from alexnet_jax.training.train import train
from tests.conftest import TINY_CONFIG, assert_train_raises, cpu_mesh, read_log

SMALL = Network(
    name="small",
    input_size=16,
    layers=(
        Conv(16, name="conv1", kernel=3, stride=2, std=0.1), ReLU(),
        Dense(24, name="fc2", reads="all", std=0.1), ReLU(), Dropout(0.5),
        Dense(7, name="fc3", reads="all", std=0.2),
    ),
)  # fmt: skip
"""Network that compiles quickly; 4 devices cannot divide the biases of fc2 and fc3 evenly."""
MESHES = {"2x1": (2, False), "4x1": (4, False), "2x2": (2, True)}
RATE = 0.001
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


def meshes(*fast):
    """Parametrize a test with the meshes; those that are not named are slow."""
    return pytest.mark.parametrize(
        "mesh_name", [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in MESHES]
    )


def example(seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (8, SMALL.input_size, SMALL.input_size, 3), np.uint8)
    return Example(images, rng.integers(0, 7, 8).astype(np.int32), rng.normal(0, 5, (8, 3)).astype(np.float32))


@cache
def trained(mesh_name, form=GradientSum(), precision: Precision = "float32"):  # noqa: B008 (frozen)
    """Return the losses, parameters and momentum after each of three training steps, and the last state."""
    data, split = MESHES[mesh_name]
    mesh, optimizer = cpu_mesh(SMALL, data, split=split), paper_update()
    state = for_precision(initial_state(SMALL, mesh, optimizer, 0), precision)
    shardings = state_shardings(mesh, state, form)
    state = jax.device_put(state, shardings)
    step = make_train_step(SMALL, mesh, optimizer, seed=0, precision=precision, gradient_sum=form)
    hparams = jax.device_put(constant_hparams(state, RATE), replicated(mesh))
    mean = jax.device_put(np.full((SMALL.input_size,) * 2 + (3,), 120, np.float32), replicated(mesh))
    losses, params, momentum = [], [], []
    for number in range(3):
        state, metrics = step(state, put_batch(example(number), mesh), mean, hparams)
        losses.append(float(metrics.loss))
        params.append(jax.device_get(state.params))
        momentum.append(jax.device_get(state.opt_state))
    assert step._cache_size() == 1, "the returned state has the shardings of the first"  # type: ignore[reportFunctionMemberAccess]
    for x, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)
    return losses, params, momentum, state


def relative_errors(actual, expected):
    """Return the maximum error of each array, relative to its largest element."""
    errors = jax.tree.map(lambda a, b: np.abs(np.float32(a) - np.float32(b)).max() / np.abs(b).max(), actual, expected)
    return jax.tree.leaves(errors)


@meshes("2x2")
def test_sharded_update_equals_the_exact_one(mesh_name):
    losses, params, momentum, _ = trained(mesh_name, GradientSum(sharded=True))
    expected_losses, expected_params, expected_momentum, _ = trained(mesh_name)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert len(set(losses)) == 3
    assert max(relative_errors(params, expected_params)) < 1e-6
    assert max(relative_errors(momentum, expected_momentum)) < 1e-5


@meshes()
def test_sharded_update_in_bfloat16_equals_the_exact_one(mesh_name):
    """Compare after one step: in the second, a difference in the last bit can round a parameter to its other neighbor."""
    losses, params, momentum, state = trained(mesh_name, GradientSum(sharded=True), "bfloat16")
    expected_losses, expected_params, expected_momentum, _ = trained(mesh_name, precision="bfloat16")
    np.testing.assert_allclose(losses[0], expected_losses[0], rtol=1e-5)
    assert max(relative_errors(params[0], expected_params[0])) < 1e-6
    assert max(relative_errors(momentum[0], expected_momentum[0])) < 1e-5
    assert isinstance(state, Bfloat16TrainState)
    rounded = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params[-1])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.rounded_params), rounded)


@pytest.mark.parametrize("sharded", [False, True])
@meshes("2x2")
def test_gradients_in_bfloat16_differ_by_their_rounding(mesh_name, sharded):
    """After one step, the momentum is the rate times the gradient: each term and each partial sum is rounded to 8 bits."""
    data, _ = MESHES[mesh_name]
    errors = relative_errors(trained(mesh_name, GradientSum("bfloat16", sharded))[2][0], trained(mesh_name)[2][0])
    # The terms can be larger than their sum, so the bound is relative to the largest gradient of the parameter.
    assert 1e-5 < max(errors) <= 2 * data * 2.0**-8


@meshes("2x2")
def test_each_device_has_a_part_of_the_momentum(mesh_name):
    *_, state = trained(mesh_name, GradientSum(sharded=True))
    data, split = MESHES[mesh_name]
    for leaf in jax.tree.leaves(state.opt_state):
        parts = data if any(size % data == 0 for size in leaf.shape[1:]) else 1
        assert leaf.addressable_shards[0].data.size * parts * (SMALL.towers if split else 1) == leaf.size
    assert all(
        leaf.sharding.is_equivalent_to(parameter_sharding(leaf.sharding.mesh), leaf.ndim)
        for leaf in jax.tree.leaves(state.params)
    )


def test_parameters_that_cannot_be_divided_evenly_are_updated_by_all_devices():
    mesh = cpu_mesh(SMALL, 4, split=False)
    assert mesh.shape[DATA] == 4
    assert update_sharding(mesh, (2, 5, 5, 3, 12)).spec == P(None, None, None, None, DATA)
    assert update_sharding(mesh, (2, 8, 12)).spec == P(None, DATA)
    assert update_sharding(mesh, (4, 7)).spec == P(None)


def test_the_default_sum_and_that_on_one_device_are_exact():
    one, two = (cpu_mesh(SMALL, data, split=False) for data in (1, 2))
    others = GradientSum("bfloat16"), GradientSum(sharded=True)
    assert [GradientSum().is_exact_on(mesh) for mesh in (one, two)] == [True, True]
    assert [form.is_exact_on(mesh) for form in others for mesh in (one, two)] == [True, False] * 2


@pytest.mark.parametrize("form", [GradientSum("bfloat16"), GradientSum("bfloat16", sharded=True)], ids=str)
def test_gradients_cross_in_bfloat16(form):
    """Each parameter has one sum over devices, of bfloat16 arrays."""
    mesh, optimizer = cpu_mesh(SMALL, 2, split=False), paper_update()
    state = initial_state(SMALL, mesh, optimizer, 0)
    step = make_train_step(SMALL, mesh, optimizer, seed=0, gradient_sum=form)
    state = jax.device_put(state, state_shardings(mesh, state, form))
    mean = np.full((SMALL.input_size,) * 2 + (3,), 120, np.float32)
    text = step.lower(state, put_batch(example(0), mesh), mean, constant_hparams(state, RATE)).as_text()  # type: ignore[reportFunctionMemberAccess]
    sums = re.findall(r'"stablehlo\.(?:all_reduce|reduce_scatter)".*?-> tensor<[\dx]*(\w+)>', text, re.DOTALL)
    assert sums == ["bf16"] * len(jax.tree.leaves(state.params))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_step_has_no_other_collectives(precision):
    """The compiler adds none: each parameter is scattered and gathered once, and all devices sum undivided biases and metrics."""
    mesh, optimizer, form = cpu_mesh(SMALL, 4, split=False), paper_update(), GradientSum(sharded=True)
    state = for_precision(initial_state(SMALL, mesh, optimizer, 0), precision)
    state = jax.device_put(state, state_shardings(mesh, state, form))
    step = make_train_step(SMALL, mesh, optimizer, seed=0, precision=precision, gradient_sum=form)
    mean = np.full((SMALL.input_size,) * 2 + (3,), 120, np.float32)
    lowered = step.lower(state, put_batch(example(0), mesh), mean, constant_hparams(state, RATE))  # type: ignore[reportFunctionMemberAccess]
    text = lowered.compile().as_text()
    assert text is not None
    divided = sum(update_sharding(mesh, leaf.shape).spec != P(None) for leaf in jax.tree.leaves(state.params))
    counts = {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in COLLECTIVES}
    sums = counts.pop("all-reduce")
    assert counts == {"all-gather": divided, "reduce-scatter": divided, "all-to-all": 0, "collective-permute": 0}
    assert sums <= len(jax.tree.leaves(state.params)) - divided + 2


@pytest.mark.slow
def test_runs_continue_with_the_other_form(options, monkeypatch):
    """Continue a run with and without a sharded update; gradients in bfloat16 are another setting, which is named."""
    monkeypatch.setattr("alexnet_jax.training.run_logger.LOG_EVERY", 1)
    config, run = replace(TINY_CONFIG, network=SMALL), options.runs_dir / "run"
    options = replace(options, devices=2, placement="single")
    for epochs, sharded in enumerate((True, False), 1):
        train("small", replace(config, epochs=epochs), replace(options, run=run, shard_update=sharded))
    exact = train("small", replace(config, epochs=2), options).run
    losses = [[line["loss"] for line in read_log(folder) if "epoch" not in line] for folder in (run, exact)]
    assert len(losses[0]) == 20
    np.testing.assert_allclose(*losses, rtol=1e-4)
    config, options = replace(config, gradient_dtype="bfloat16"), replace(options, run=run, shard_update=True)
    assert_train_raises("has other settings .gradient_dtype was float32, is bfloat16.: .* or --change-settings", config, options)
    assert train("small", config, replace(options, change_settings=True)).step == 30
