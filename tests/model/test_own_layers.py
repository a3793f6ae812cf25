"""Tests that networks with a layer class of the user's own can be loaded again, or are refused before training."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import pytest

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Layer
from alexnet_jax.model.network import Network
from alexnet_jax.training.train import train
from alexnet_jax.weights.trained_model import load
from tests.conftest import TINY_CONFIG, assert_train_raises
from tests.tiny import TINY


class LeakyReLU(Layer):
    short_name = "leaky_relu"
    slope: float = 0.1

    def __call__(self, x):
        return jnp.where(x > 0, x, self.slope * x)


class Apply(Layer):
    short_name = "apply"
    function: Callable = jnp.tanh

    def __call__(self, x):
        return self.function(x)


def with_layer(layer):
    return replace(TINY_CONFIG, epochs=1, network=replace(TINY, layers=(*TINY.layers[:-1], layer, TINY.layers[-1])))


def test_network_with_own_layer_is_loaded(options):
    config = with_layer(LeakyReLU(0.2))
    run = train("own", config, options).run
    assert load(run).network == config.network.with_num_classes(2)


def test_layer_that_cannot_be_stored_is_refused(options):
    assert_train_raises("layer Apply of tiny cannot be stored with the network", with_layer(Apply()), options)
    assert not options.runs_dir.exists()


def test_unknown_layer_names_the_cure():
    record = with_layer(LeakyReLU()).network.to_json()
    record["layers"][-2]["layer"] = "Swish"
    with pytest.raises(UserError, match="no layer class Swish; if it is your own, import the module that defines it"):
        Network.from_json(record)
