"""Tests of logits and gradients against the transcriptions of the networks in PyTorch."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax import SOURCE_145, TWO_TOWER
from alexnet_jax.parallel import placement
from alexnet_kernels.xla import winograd
from tests.conftest import cpu_mesh

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make parity installs it")
from tests.parity import transcription  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def tiles(monkeypatch):
    """List of the tiles that are chosen; conv2 to conv5 take minimal filtering, as in large batches."""
    monkeypatch.setattr(winograd, "KERNEL_COST", 0)
    tile_size, tiles = winograd.tile_size, []
    monkeypatch.setattr(winograd, "tile_size", lambda *shapes: tiles.append(tile_size(*shapes)) or tiles[-1])
    return tiles


@pytest.mark.parametrize("split", [False, True], ids=["one device", "two devices"])
@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145], ids=lambda network: network.name)
class TestParity:
    def test_logits(self, network, split):
        assert logits_error(network, split) < 1e-5

    def test_logits_with_minimal_filtering(self, network, split, tiles):
        assert logits_error(network, split) < 1e-5
        assert set(tiles) >= {4, 5}

    def test_gradients(self, network, split, tiles):
        """Compare gradients in float64; in float32, rounding changes some maxima and signs, and the gradient of conv1 by 0.4%."""
        params, images, labels, forward = make_inputs(network, split)
        with jax.enable_x64(True):
            images64 = jnp.asarray(np.asarray(images, np.float64))

            def loss(params):
                return optax.softmax_cross_entropy_with_integer_labels(forward(params, images64, None), labels).mean()

            gradients = jax.device_get(jax.jit(jax.grad(loss))(params))
        assert set(tiles) >= {4, 5}
        ours = transcription.weights(gradients, torch.float64)
        for name, their_layer in pytorch_gradients(network).items():
            for our_array, their_array in zip(ours[name], their_layer, strict=True):
                assert relative_error(our_array.detach().numpy(), their_array) < 1e-5, name


def logits_error(network, split):
    params, images, _, forward = make_inputs(network, split)
    return relative_error(np.asarray(jax.jit(forward)(params, images, None)), pytorch_logits(network))


# Both placements have the same parameters, so one at a time is kept in memory.
@lru_cache(maxsize=1)
def pytorch_logits(network):
    params, images, _, _ = make_inputs(network, split=False)
    w = transcription.weights(jax.device_get(params), torch.float32)
    with torch.no_grad():
        return getattr(transcription, network.name)(w, torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)).numpy()


@lru_cache(maxsize=1)
def pytorch_gradients(network):
    params, images, labels, _ = make_inputs(network, split=False)
    w = transcription.weights(jax.device_get(params), torch.float64)
    logits = getattr(transcription, network.name)(w, torch.tensor(np.asarray(images, np.float64)).permute(0, 3, 1, 2))
    torch.nn.functional.cross_entropy(logits, torch.tensor(np.asarray(labels)).long()).backward()
    return {name: [array.grad.numpy() for array in layer] for name, layer in w.items()}


def make_inputs(network, split):
    """Return parameters, two images, their labels, and the forward function on one or two devices."""
    rng = np.random.default_rng(0)
    mesh = cpu_mesh(network, 1, split=split)
    params = placement.init(network, mesh, jax.random.key(0))
    images = jnp.asarray(rng.normal(0, 60, (2, 224, 224, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 1000, 2), jnp.int32)
    return params, images, labels, placement.forward(network, mesh)


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
