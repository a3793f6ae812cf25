"""Tests of the placement of the towers on one, two and four devices."""

import re
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from alexnet_jax import QUICKSTART
from alexnet_jax.data.pipeline.augment import Crop, Example
from alexnet_jax.errors import UserError
from alexnet_jax.model.summary import summarize
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import choose_mesh, make_mesh
from alexnet_jax.training.optimizer import learning_rates, paper_update
from alexnet_jax.training.step import StepHparams, constant_hparams, initial_state, make_train_step, put_batch
from tests.conftest import cpu_mesh, layer_outputs

BATCH = 8
BORDER = 3  # size of the mean image minus size of the crops, in pixels


def batch(rng, size):
    return Example(
        rng.integers(0, 256, (BATCH, size, size, 3), np.uint8),
        rng.integers(0, 7, BATCH).astype(np.int32),
        rng.normal(0, 5, (BATCH, 3)).astype(np.float32),
        Crop(rng.integers(0, BORDER + 1, (BATCH, 2)).astype(np.int32), rng.integers(0, 2, BATCH).astype(bool)),
    )


def five_steps(network, mesh):
    """Return the losses and the final parameters of five training steps with dropout."""
    rng = np.random.default_rng(3)
    optimizer = paper_update()
    state = initial_state(network, mesh, optimizer, seed=0)
    step = make_train_step(network, mesh, optimizer, seed=0)
    hparams = StepHparams(learning_rates(state.params, 0.001, 0.002), np.bool_(True))
    mean = rng.uniform(100, 140, (network.input_size + BORDER,) * 2 + (3,)).astype(np.float32)
    losses = []
    for _ in range(5):
        state, metrics = step(state, put_batch(batch(rng, network.input_size), mesh), mean, hparams)
        losses.append(float(metrics.loss))
    return np.array(losses), jax.device_get(state.params)


@pytest.mark.parametrize(("data", "split"), [(1, True), (2, False), (2, True)], ids=["1x2", "2x1", "2x2"])
def test_placements_have_equal_losses_and_parameters(tiny, data, split):
    losses, params = five_steps(tiny, cpu_mesh(tiny, data, split=split))
    expected_losses, expected_params = five_steps(tiny, cpu_mesh(tiny, 1, split=False))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), params, expected_params)
    assert len(set(losses)) == 5, "the loss does not change"


def compiled_step(network, mesh):
    optimizer = paper_update()
    state = initial_state(network, mesh, optimizer, seed=0)
    example = batch(np.random.default_rng(0), network.input_size)
    mean = np.zeros((network.input_size + BORDER,) * 2 + (3,), np.float32)
    step = make_train_step(network, mesh, optimizer, seed=0)
    hparams = constant_hparams(state, 0.01)
    lowered = step.lower(state, put_batch(example, mesh), mean, hparams)  # type: ignore[reportFunctionMemberAccess]
    text = lowered.compile().as_text()
    assert text is not None
    return text


def collectives(text, kind):
    """Return (output shape, op_name) of each collective of a kind in the HLO text."""
    operations = []
    for line in text.splitlines():
        match = re.search(rf"= \(?\w+\[([\d,]*)\].* {kind}(?:-start)?\(", line)
        if match:
            name = re.search(r'op_name="([^"]*)"', line)
            operations.append((tuple(map(int, filter(None, match[1].split(",")))), name[1] if name else ""))
    return operations


def test_all_gathers_are_at_conv3_and_the_dense_layers_only():
    text = compiled_step(QUICKSTART, cpu_mesh(QUICKSTART, 1, split=True))
    gathers = collectives(text, "all-gather")
    assert sorted(name.split("/")[-2] for _, name in gathers) == ["conv3", "fc6", "fc7", "fc8"]
    # The gathered bytes agree with the summary of the network.
    rows = {row.name: row for row in summarize(QUICKSTART)}
    for shape, name in gathers:
        assert 4 * prod(shape) == BATCH * rows[name.split("/")[-2]].gathered_bytes
    # The backward pass has a reduce-scatter for each all-gather. The softmax needs all-reduces of at most one number per image.
    assert len(collectives(text, "reduce-scatter")) == 4
    assert all(prod(shape) <= BATCH for shape, _ in collectives(text, "all-reduce"))
    for kind in ("all-to-all", "collective-permute"):
        assert not collectives(text, kind)


def test_single_device_has_no_collectives_or_grouped_convolutions():
    text = compiled_step(QUICKSTART, cpu_mesh(QUICKSTART, 1, split=False))
    for kind in ("all-gather", "reduce-scatter", "all-reduce"):
        assert not collectives(text, kind)
    assert not re.search(r"(feature|batch)_group_count=[2-9]", text), "grouped convolutions are many times slower on CPUs"


@pytest.mark.parametrize("split", [False, True], ids=["1x1", "1x2"])
def test_dense_kernels_are_updated_in_place(split):
    """Check that no kernel of a dense layer is copied: XLA copies a donated parameter that may be read after its update."""
    text = compiled_step(QUICKSTART, cpu_mesh(QUICKSTART, 1, split=split))
    path = r"state\.(?:params|opt_state\[2\]\.trace)\[\\'fc\d\\'\]\[\\'kernel\\'\]"
    kernels = re.findall(rf'%(\S+) = \S+ parameter\(\d+\).*op_name="{path}"', text)
    assert len(kernels) == 6, "parameters and momentum buffers of three layers"
    assert not [name for name in kernels if f"copy(%{name})" in text]


def test_towers_are_independent_before_conv3(tiny):
    """Check that the gradient of tower 0's activations with respect to tower 1's weights is zero up to conv2, but not after."""
    params = placement.init(tiny, cpu_mesh(tiny, 1, split=False), jax.random.key(0))
    images = 50 * jax.random.normal(jax.random.key(5), (2, 29, 29, 3))

    def tower_0_energy(params, name):
        return jnp.square(layer_outputs(tiny, params, images)[name][0]).sum()

    for name in ("conv1", "conv1/pool", "conv2", "conv2/pool", "conv3", "fc7"):
        gradients = jax.grad(tower_0_energy)(params, name)
        tower_1_gradient = sum(float(jnp.abs(leaf[1]).sum()) for leaf in jax.tree.leaves(gradients))
        assert (tower_1_gradient > 0) == (name in ("conv3", "fc7")), name


def test_dropout_masks_differ_by_image_tower_and_step(tiny):
    params = placement.init(tiny, cpu_mesh(tiny, 1, split=False), jax.random.key(0))
    images = jnp.zeros((2, 29, 29, 3))

    def dropout_mask(seed):
        return np.asarray(layer_outputs(tiny, params, images, jax.random.key(seed))["fc6/drop"]) == 0

    masks = [dropout_mask(0)[0, 0], dropout_mask(0)[0, 1], dropout_mask(0)[1, 0], dropout_mask(1)[0, 0]]
    assert all((masks[i] != masks[j]).any() for i in range(4) for j in range(i))
    assert np.array_equal(dropout_mask(0), dropout_mask(0))


@pytest.mark.parametrize(("data", "split"), [(1, True), (2, False), (2, True), (4, False)], ids=["1x2", "2x1", "2x2", "4x1"])
def test_dropout_masks_do_not_depend_on_placement(tiny, data, split):
    images = 50 * jax.random.normal(jax.random.key(5), (BATCH, 29, 29, 3))

    def dropped(mesh):
        params = placement.init(tiny, mesh, jax.random.key(0))
        before, after = (jax.jit(placement.forward(tiny, mesh, f"fc6/{layer}")) for layer in ("relu", "drop"))
        key = jax.random.key(3)
        return (np.asarray(before(params, images, key)) > 0.01) & (np.asarray(after(params, images, key)) == 0)

    one_device = dropped(cpu_mesh(tiny, 1, split=False))
    assert 0.1 < one_device.mean() < 0.5
    np.testing.assert_array_equal(dropped(cpu_mesh(tiny, data, split=split)), one_device)


def test_dropout_rate_is_one_half(tiny):
    dropout, rngs = tiny.layers[-2], {"dropout": jax.random.key(0)}
    kept = jax.vmap(lambda _: dropout.apply({}, jnp.ones((100, 200)), rngs=rngs), axis_name="tower")(jnp.arange(2))
    assert float(kept.mean()) == pytest.approx(0.5, abs=4 * 0.5 / 40_000**0.5)


def test_uneven_split_of_towers_is_an_error(tiny):
    with pytest.raises(ValueError, match="the 2 towers of tiny cannot be divided evenly among 3 device"):
        make_mesh(tiny, jax.devices()[:3], split_towers=True)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((1, 2), ("data", "model"), "name its axes 'data', which divides the images, and 'tower'"),
        ((1, 2), ("batch", "tower"), "name its axes 'data'"),
        ((1, 4), ("data", "tower"), "axis 'tower' must have size 2, the number of towers of tiny"),
        ((2, 1), ("data", "tower"), "axis 'tower' must have size 2"),
    ],
)
def test_own_mesh_with_other_axes_is_an_error(tiny, shape, axes, message):
    mesh = Mesh(np.array(jax.devices()[: prod(shape)]).reshape(shape), axes)
    with pytest.raises(ValueError, match=message):
        placement.forward(tiny, mesh)
    with pytest.raises(ValueError, match=message):
        placement.init(tiny, mesh, jax.random.key(0))


def test_own_mesh_has_axes_in_any_order_and_of_type_auto(tiny):
    devices = jax.devices()[:2]
    own, expected = Mesh(np.array(devices).reshape(2, 1), ("tower", "data")), make_mesh(tiny, devices, split_towers=True)
    images = 50 * jax.random.normal(jax.random.key(1), (2, tiny.input_size, tiny.input_size, 3))
    outputs = [
        placement.forward(tiny, mesh)(placement.init(tiny, mesh, jax.random.key(0)), images, None) for mesh in (own, expected)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    with pytest.raises(ValueError, match=r"pass axis_types=\(AxisType.Auto,\) \* 2 to jax.make_mesh"):
        placement.forward(tiny, jax.make_mesh((1, 2), ("data", "tower"), (AxisType.Explicit,) * 2, devices=devices))


def test_both_towers_run_on_a_single_initialized_device(tiny, monkeypatch):
    assert dict(choose_mesh(tiny).shape) == {"data": 1, "tower": 2}
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    monkeypatch.setattr(jax, "local_devices", lambda process_index: jax.devices()[:1])
    assert dict(choose_mesh(tiny).shape) == {"data": 1}
    with pytest.raises(UserError, match=r"2 devices requested, 1 available .*: call configure_cpu\(devices=2\) before JAX"):
        choose_mesh(tiny, "split")
