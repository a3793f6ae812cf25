"""Layers of cuda-convnet against loops in NumPy, and what is made of layers of the same kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.model.cifar import CIFAR_NETWORKS
from alexnet_jax.model.comparison_layers import AbsTanh, AvgPool, LocallyConnected, Sigmoid, Tanh
from alexnet_jax.model.layers import TOWER, MaxPool
from alexnet_jax.model.network import Network
from alexnet_jax.model.summary import summarize


def applied(layer, x, params=None):
    """A layer in one tower."""
    call = jax.vmap(lambda x: layer.apply({"params": params or {}}, x), axis_name=TOWER)
    return np.asarray(call(jnp.asarray(x, jnp.float32)[None])[0])


def test_every_place_of_a_locally_connected_layer_has_its_own_kernels(rng):
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
    np.testing.assert_allclose(applied(layer, x, params), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "of_window"), [(MaxPool, np.max), (AvgPool, np.mean)], ids=["max", "average"])
def test_the_last_square_of_a_pooling_may_overrun_the_edge(kind, of_window, rng):
    x = rng.normal(size=(2, 8, 8, 3)) - 5  # below zero, so that zeros beyond the edge would show
    expected = np.zeros((2, 4, 4, 3))
    for row in range(4):
        for column in range(4):
            expected[:, row, column] = of_window(x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3], axis=(1, 2))
    np.testing.assert_allclose(applied(kind(3, 2), x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "function"),
    [(Tanh(), np.tanh), (AbsTanh(), lambda x: abs(np.tanh(x))), (Sigmoid(), lambda x: 1 / (1 + np.exp(-x)))],
)
def test_nonlinearities_of_the_time(layer, function, rng):
    x = rng.normal(size=(5, 6))
    np.testing.assert_allclose(applied(layer, x), function(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cifar_norm", 2_112_970), ("cifar_plain", 2_112_970), ("cifar_80sec", 145_578),
        ("cifar_19pct", 89_578), ("cifar_18pct", 89_578),
    ],
)  # fmt: skip
def test_networks_for_cifar_have_the_originals_parameters(name, parameters):
    assert sum(row.parameters for row in summarize(CIFAR_NETWORKS[name])) == parameters


@pytest.mark.parametrize("network", CIFAR_NETWORKS.values(), ids=lambda network: network.name)
def test_a_network_comes_back_from_json(network):
    assert Network.from_json(network.to_json()) == network
