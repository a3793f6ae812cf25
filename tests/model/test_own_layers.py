"""Tests that stored networks are loaded or refused, also those with a layer class of the user's own."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from alexnet_jax.errors import UserError
from alexnet_jax.model.layers import Layer, ReLU
from alexnet_jax.model.network import Network, layer_from_json, layer_to_json
from alexnet_jax.model.tower import init, parameter_shapes
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


class PReLU(ReLU):
    short_name = "prelu"
    slope: float = 0.25

    @nn.compact
    def __call__(self, x):
        return jnp.where(x > 0, x, self.param("slope", nn.initializers.constant(self.slope), (x.shape[-1],)) * x)


class Concatenated(ReLU):
    short_name = "concatenated"

    def __call__(self, x):
        return jnp.concatenate([nn.relu(x), nn.relu(-x)], axis=-1)


@pytest.mark.parametrize("layer", [PReLU(), Concatenated()], ids=["parameters", "features"])
def test_subclass_of_a_layer_may_add_parameters_and_features(layer):
    network = with_layer(layer).network
    params = jax.eval_shape(partial(init, network), jax.random.key(0))
    assert parameter_shapes(network) == jax.tree.map(lambda leaf: leaf.shape, params)


def test_layer_that_cannot_be_stored_is_refused(options):
    assert_train_raises("Apply cannot be stored with the run", with_layer(Apply()), options)
    assert not options.runs_dir.exists()


def test_unknown_layer_names_the_cure():
    record = with_layer(LeakyReLU()).network.to_json()
    record["layers"][-2]["layer"] = "Swish"
    with pytest.raises(UserError, match="there is no layer class Swish: if it is your own, import the module that defines it"):
        Network.from_json(record)


def test_fields_of_own_layers_are_any_that_json_stores():
    class Shifted(Layer):
        short_name = "shifted"
        axis: int = -1
        by: "float | None" = None  # the form of all annotations after `from __future__ import annotations`
        reverse: bool = False

    layer = Shifted(axis=0, by=0.5, reverse=True)
    assert layer_from_json(json.loads(json.dumps(layer_to_json(layer)))) == layer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", 0), ("features", True), ("features", 8.0), ("features", 1 << 20), ("std", True), ("std", "0.1"),
        ("std", 1e9), ("std", float("nan")), ("reads", "both"), ("reads", None), ("padding", [0]), ("padding", [0, -1]),
        ("padding", [0, True]), ("padding", [0, 1e6]), ("padding", 0), ("name", 1),
    ],
)  # fmt: skip
def test_layer_with_invalid_field_is_refused(field, value):
    record = TINY.to_json()
    record["layers"][0][field] = value
    with pytest.raises(UserError, match=rf"\({field} of Conv cannot be "):
        Network.from_json(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [("features", 2), ("features", (1 << 20) - 2), ("std", 0), ("bias", -1.5), ("reads", "all"), ("padding", [0, 0])],
)
def test_layer_with_valid_field_is_loaded(field, value):
    record = TINY.to_json()
    record["layers"][0][field] = value
    layer: Any = Network.from_json(record).layers[0]
    assert getattr(layer, field) == (tuple(value) if isinstance(value, list) else value)
    assert isinstance(layer.std, float)


@pytest.mark.parametrize("field", ["towers", "input_size"])
def test_sizes_of_a_stored_network_are_positive_integers(field):
    for value in (0, True, 2.0, 1 << 14):
        with pytest.raises(UserError, match=r"invalid name, towers or input_size"):
            Network.from_json(TINY.to_json() | {field: value})
    last_layer = TINY.to_json()["layers"][-1:]  # the towers need not divide its features
    for value in (1, (1 << 14) - 1):
        assert getattr(Network.from_json(TINY.to_json() | {"layers": last_layer, field: value}), field) == value
