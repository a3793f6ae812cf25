"""Tests of layers against loops in NumPy, and of the CIFAR-10 networks of cuda-convnet."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model.cifar import CIFAR_NETWORKS
from alexnet_jax.model.comparison_layers import AbsTanh, AvgPool, LocallyConnected, Sigmoid, Tanh
from alexnet_jax.model.layers import TOWER, LocalResponseNorm, MaxPool, SameMapNorm
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize
from tests.numpy_network import norm


def apply_layer(layer, x, params=None):
    """Return the output of a layer in a one-tower network."""
    mapped = jax.vmap(lambda x: layer.apply({"params": params or {}}, x), axis_name=TOWER)
    return np.asarray(mapped(jnp.asarray(x, jnp.float32)[None])[0])


def test_locally_connected_equals_numpy(rng):
    layer = LocallyConnected(7, name="local", kernel=3)
    x = rng.normal(size=(2, 4, 5, 3))
    kernel, bias = rng.normal(size=(20, 27, 7)), rng.normal(size=(20, 7))
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 5, 7))
    for row in range(4):
        for column in range(5):
            window = padded[:, row : row + 3, column : column + 3].reshape(2, -1)
            expected[:, row, column] = window @ kernel[5 * row + column] + bias[5 * row + column]
    np.testing.assert_allclose(apply_layer(layer, x, params), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layer_class", "reduce"), [(MaxPool, np.max), (AvgPool, np.mean)], ids=["max", "average"])
def test_pooling_window_past_the_edge(layer_class, reduce, rng):
    x = rng.normal(size=(3, 8, 8, 4)) - 5  # negative, so that zeros past the edge would change the maxima
    expected = np.zeros((3, 4, 4, 4))
    for row in range(4):
        for column in range(4):
            expected[:, row, column] = reduce(x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3], axis=(1, 2))
    np.testing.assert_allclose(apply_layer(layer_class(3, 2), x), expected, rtol=1e-5)


def test_norm_layers_use_all_constants(rng):
    """Compare windows of maps, and of pixels of one map, for constants other than the defaults."""
    x = rng.normal(0, 3, (2, 4, 5, 6))
    constants: Any = {"k": 1.5, "alpha": 0.1, "beta": 0.5}
    np.testing.assert_allclose(apply_layer(LocalResponseNorm(size=3, **constants), x), norm(x, n=3, **constants), rtol=1e-5)
    expected = np.zeros_like(x)
    for row, column in np.ndindex(4, 5):
        pixels = x[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        expected[:, row, column] = x[:, row, column] / (1.5 + 0.1 * (pixels**2).sum((1, 2))) ** 0.5
    np.testing.assert_allclose(apply_layer(SameMapNorm(size=3, **constants), x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "function"),
    [(Tanh(), np.tanh), (AbsTanh(), lambda x: abs(np.tanh(x))), (Sigmoid(), lambda x: 1 / (1 + np.exp(-x)))],
)
def test_nonlinearities(layer, function, rng):
    x = rng.normal(size=(5, 6))
    np.testing.assert_allclose(apply_layer(layer, x), function(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cifar_norm", 2_112_970), ("cifar_plain", 2_112_970), ("cifar_80sec", 145_578),
        ("cifar_19pct", 89_578), ("cifar_18pct", 89_578),
    ],
)  # fmt: skip
def test_cifar_networks_have_original_parameter_counts(name, parameters):
    assert sum(row.parameters for row in summarize(CIFAR_NETWORKS[name])) == parameters


@pytest.mark.parametrize("network", CIFAR_NETWORKS.values(), ids=lambda network: network.name)
def test_json_round_trip(network):
    assert Network.from_json(network.to_json()) == network
