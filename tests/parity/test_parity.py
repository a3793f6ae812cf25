import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import SOURCE_145, TWO_TOWER
from alexnet_jax.parallel import placement
from alexnet_jax.training.step import cross_entropy
from tests.conftest import mesh_of

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity installs it")
from tests.parity import transcription  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("split", [False, True], ids=["one device", "two devices"])
@pytest.mark.parametrize("network", [TWO_TOWER, SOURCE_145], ids=lambda network: network.name)
class TestParity:
    def test_logits(self, network, split):
        params, images, _, forward = setting(network, split)
        logits = jax.jit(forward)(params, images, None)
        w = transcription.weights(jax.device_get(params), torch.float32)
        theirs = getattr(transcription, network.name)(w, torch.tensor(np.asarray(images)).permute(0, 3, 1, 2))
        assert relative(np.asarray(logits), theirs.detach().numpy()) < 1e-5

    def test_gradients(self, network, split):
        """In float64: float32 rounding decides some maxima and signs, and conv1's gradient then differs by 0.4 %."""
        params, images, labels, forward = setting(network, split)
        with jax.enable_x64(True):
            wide = jnp.asarray(np.asarray(images, np.float64))
            loss = lambda params: cross_entropy(forward(params, wide, None), labels).mean()  # noqa: E731
            gradients = jax.device_get(jax.jit(jax.grad(loss))(params))
        w = transcription.weights(jax.device_get(params), torch.float64)
        theirs = getattr(transcription, network.name)(w, torch.tensor(np.asarray(wide)).permute(0, 3, 1, 2))
        torch.nn.functional.cross_entropy(theirs, torch.tensor(np.asarray(labels)).long()).backward()
        ours = transcription.weights(gradients, torch.float64)
        for name, theirs_of_layer in w.items():
            for mine, of_theirs in zip(ours[name], theirs_of_layer, strict=True):
                assert relative(mine.detach().numpy(), of_theirs.grad.numpy()) < 1e-5, name


def setting(network, split):
    """Parameters, four images, labels, and the network placed on one or two devices."""
    rng = np.random.default_rng(0)
    mesh = mesh_of(network, 1, split=split)
    params = placement.init(network, mesh, jax.random.key(0))
    images = jnp.asarray(rng.normal(0, 60, (4, 224, 224, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 1000, 4), jnp.int32)
    return params, images, labels, placement.forward(network, mesh)


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
