"""Test at a small size that all implementations of `make bench` take the same training step: loss, gradients and update."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax import TWO_TOWER
from alexnet_jax.model.layers import Dropout
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import constant_hparams, initial_state, make_train_step, put_batch, random_batch
from tests.conftest import cpu_mesh

ROOT = Path(__file__).parents[2]
WIDTH, SIZE, POOLED_SIZE, CLASSES, BATCH = 1 / 16, 64, 1, 10, 4
RATE = 0.01


@pytest.fixture(scope="module")
def our_step():
    """Parameters before a step without dropout, with the towers concatenated, the loss, and the changes of the parameters."""
    layers = []
    for layer in TWO_TOWER.layers:
        if hasattr(layer, "features"):
            layers.append(layer.clone(features=CLASSES if layer.name == "fc8" else int(layer.features * WIDTH)))
        elif not isinstance(layer, Dropout):
            layers.append(layer)
    network = replace(TWO_TOWER, input_size=SIZE, layers=tuple(layers))
    mesh, optimizer, rng = cpu_mesh(network, 1, split=False), paper_update(), np.random.default_rng(0)
    state = initial_state(network, mesh, optimizer, seed=0)

    def draw(leaf):
        """Return weights whose activations are neither constant nor vanish."""
        scale = 0.1 if leaf.ndim == 2 else (2 / np.prod(leaf.shape[1:-1])) ** 0.5
        return jax.device_put(rng.normal(0, scale, leaf.shape).astype(np.float32), leaf.sharding)

    state = replace(state, params=jax.tree.map(draw, state.params))
    before = concatenate_towers(state.params)
    step = make_train_step(network, mesh, optimizer, seed=0)
    mean = np.full((SIZE, SIZE, 3), 128, np.float32)
    state, metrics = step(state, put_batch(random_batch(BATCH, SIZE), mesh), mean, constant_hparams(state, RATE))
    after = concatenate_towers(state.params)
    return before, float(metrics.loss), jax.tree.map(np.subtract, after, before)


def concatenate_towers(params):
    return jax.tree.map(lambda leaf: np.concatenate([np.array(tower) for tower in leaf], -1), params)


def assert_same_step(our_step, loss, after):
    before, our_loss, our_update = our_step
    assert loss == pytest.approx(our_loss, rel=1e-4)
    update = jax.tree.map(np.subtract, after, before)
    assert update.keys() == our_update.keys()
    for name, layer in our_update.items():
        for kind, expected in layer.items():
            norm = np.linalg.norm(expected)
            assert norm > 1e-6, f"{name} {kind} does not change"
            assert np.linalg.norm(update[name][kind] - expected) < 2e-3 * norm, f"{name} {kind}"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")


def test_plain_flax_takes_the_same_step(our_step, benchmarks):
    flax = import_module("flax_alexnet")
    state = flax.initial_state(flax.AlexNet(CLASSES, WIDTH, dropout_rate=0.0), SIZE)
    assert jax.tree.map(np.shape, state.params) == jax.tree.map(np.shape, our_step[0])
    batch = random_batch(BATCH, SIZE)
    state = state.replace(params=jax.tree.map(jax.numpy.array, our_step[0]))
    state, loss = flax.make_train_step({})(state, batch.image, batch.label)
    assert_same_step(our_step, float(loss), jax.device_get(state.params))


def test_pytorch_takes_the_same_step(our_step, benchmarks):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; make parity installs it")
    baseline = import_module("pytorch_two_tower")
    model = baseline.TwoTower(CLASSES, WIDTH, dropout_rate=0.0, pooled_size=POOLED_SIZE)
    with torch.no_grad():
        for name, layer in our_step[0].items():
            kernel = torch.tensor(layer["kernel"])
            getattr(model, name).weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
            getattr(model, name).bias.copy_(torch.tensor(layer["bias"]))
    batch = random_batch(BATCH, SIZE)
    images, labels = torch.tensor(batch.image).permute(0, 3, 1, 2), torch.tensor(batch.label).long()
    loss = baseline.train_step(model, baseline.optimizer_for(model), images, labels)
    after = {}
    for name in our_step[0]:
        weight, bias = (getattr(model, name).get_parameter(kind).detach() for kind in ("weight", "bias"))
        kernel = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        after[name] = {"kernel": kernel.numpy(), "bias": bias.numpy()}
    assert_same_step(our_step, float(loss), after)
