"""The towers on one device, on two, on four: the same network."""

import re
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import QUICKSTART
from alexnet_jax.data.pipeline.augment import Crop, Example
from alexnet_jax.model.summary import summarize
from alexnet_jax.model.tower import activations
from alexnet_jax.parallel import placement
from alexnet_jax.parallel.mesh import choose_mesh, make_mesh
from alexnet_jax.training.optimizer import learning_rates, paper_update
from alexnet_jax.training.step import StepHparams, constant_hparams, cross_entropy, initial_state, make_train_step, put_batch
from tests.conftest import mesh_of

BATCH = 8
BORDER = 3  # pixels by which the mean image is larger than the crops


def batch(rng, size):
    return Example(
        rng.integers(0, 256, (BATCH, size, size, 3), np.uint8),
        rng.integers(0, 7, BATCH).astype(np.int32),
        rng.normal(0, 5, (BATCH, 3)).astype(np.float32),
        Crop(rng.integers(0, BORDER + 1, (BATCH, 2)).astype(np.int32), rng.integers(0, 2, BATCH).astype(bool)),
    )


def five_steps(network, mesh):
    """Losses and parameters of five steps with dropout."""
    rng = np.random.default_rng(3)
    optimizer = paper_update()
    state = initial_state(network, mesh, optimizer, seed=0)
    step = make_train_step(network, mesh, optimizer, seed=0)
    hparams = StepHparams(learning_rates(state.params, 0.001, 0.002), np.bool_(True))
    mean = rng.uniform(100, 140, (network.input_size + BORDER,) * 2 + (3,)).astype(np.float32)
    losses = []
    for _ in range(5):
        state, measured = step(state, put_batch(batch(rng, network.input_size), mesh), mean, hparams)
        losses.append(float(measured.loss))
    return np.array(losses), jax.device_get(state.params)


@pytest.mark.parametrize(("data", "split"), [(1, True), (2, False), (2, True)], ids=["1x2", "2x1", "2x2"])
def test_every_placement_trains_like_one_device(tiny, data, split):
    losses, params = five_steps(tiny, mesh_of(tiny, data, split=split))
    expected_losses, expected_params = five_steps(tiny, mesh_of(tiny, 1, split=False))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), params, expected_params)
    assert len(set(losses)) == 5, "nothing was learned"


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
    """(output shape, name in our code) of each operation of a kind."""
    found = []
    for line in text.splitlines():
        match = re.search(rf"= \(?\w+\[([\d,]*)\].* {kind}(?:-start)?\(", line)
        if match:
            name = re.search(r'op_name="([^"]*)"', line)
            found.append((tuple(map(int, filter(None, match[1].split(",")))), name[1] if name else ""))
    return found


def test_towers_meet_at_conv3_and_the_dense_layers_only():
    text = compiled_step(QUICKSTART, mesh_of(QUICKSTART, 1, split=True))
    gathers = collectives(text, "all-gather")
    assert sorted(name.split("/")[-2] for _, name in gathers) == ["conv3", "fc6", "fc7", "fc8"]
    # What crosses is what `summary` says.
    rows = {row.name: row for row in summarize(QUICKSTART)}
    for shape, name in gathers:
        assert 4 * prod(shape) == BATCH * rows[name.split("/")[-2]].gathered_bytes
    # Backward, gradients return the same way; beyond that the towers exchange numbers of an image, for the softmax.
    assert len(collectives(text, "reduce-scatter")) == 4
    assert all(prod(shape) <= BATCH for shape, _ in collectives(text, "all-reduce"))
    for kind in ("all-to-all", "collective-permute"):
        assert not collectives(text, kind)


def test_one_device_has_no_collectives_and_no_grouped_convolution():
    text = compiled_step(QUICKSTART, mesh_of(QUICKSTART, 1, split=False))
    for kind in ("all-gather", "reduce-scatter", "all-reduce"):
        assert not collectives(text, kind)
    assert not re.search(r"(feature|batch)_group_count=[2-9]", text), "XLA runs grouped convolutions many times slower on CPUs"


def test_before_conv3_a_tower_does_not_see_the_other(tiny):
    """d(tower 0's activations)/d(tower 1's weights) is zero up to conv2, and is not from conv3 on."""
    params = placement.init(tiny, mesh_of(tiny, 1, split=False), jax.random.key(0))
    images = 50 * jax.random.normal(jax.random.key(5), (2, 29, 29, 3))

    def in_tower_0(params, name):
        outputs = jax.vmap(lambda p: dict(activations(tiny, p, images))[name], axis_name="tower")(params)
        return jnp.square(outputs[0]).sum()

    for name in ("conv1", "conv1/pool", "conv2", "conv2/pool", "conv3", "fc7"):
        gradients = jax.grad(in_tower_0)(params, name)
        from_tower_1 = sum(float(jnp.abs(leaf[1]).sum()) for leaf in jax.tree.leaves(gradients))
        assert (from_tower_1 > 0) == (name in ("conv3", "fc7")), name


def test_dropout_masks_differ_by_image_tower_and_step(tiny):
    params = placement.init(tiny, mesh_of(tiny, 1, split=False), jax.random.key(0))
    images = jnp.zeros((2, 29, 29, 3))

    def dropped(seed):
        keys = jax.random.split(jax.random.key(seed), 2)
        outputs = jax.vmap(lambda p: activations(tiny, p, images, keys)["fc6/drop"], axis_name="tower")(params)
        return np.asarray(outputs) == 0

    masks = [dropped(0)[0, 0], dropped(0)[0, 1], dropped(0)[1, 0], dropped(1)[0, 0]]
    assert all((masks[i] != masks[j]).any() for i in range(4) for j in range(i))
    assert np.array_equal(dropped(0), dropped(0))


def test_half_the_units_are_dropped(tiny):
    wide = tiny.layers[-2]
    keys = jax.random.split(jax.random.key(0), 100)
    kept = jax.vmap(lambda _: wide.apply({}, jnp.ones((100, 200)), keys), axis_name="tower")(jnp.arange(2))
    assert float(kept.mean()) == pytest.approx(0.5, abs=4 * 0.5 / 40_000**0.5)


def test_cross_entropy_is_minus_log_softmax(rng):
    logits = rng.normal(0, 30, (4, 7)).astype(np.float32)
    labels = np.array([0, 3, 6, 2], np.int32)
    expected = -np.log(
        np.exp(logits - logits.max(1, keepdims=True)) / np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)
    )
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected[np.arange(4), labels], rtol=1e-4, atol=1e-5
    )


def test_devices_that_towers_cannot_share_are_refused(tiny):
    with pytest.raises(ValueError, match="2 towers, which 3 device"):
        make_mesh(tiny, jax.devices()[:3], split_towers=True)


def test_where_jax_has_begun_with_one_device_it_has_both_towers(tiny, monkeypatch):
    assert dict(choose_mesh(tiny).shape) == {"data": 1, "tower": 2}
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert dict(choose_mesh(tiny).shape) == {"data": 1}
