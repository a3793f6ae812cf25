"""One tower as two pure functions. They are written for an axis named `TOWER` and cannot tell who provides it."""

import zlib
from collections.abc import Mapping
from functools import partial
from typing import cast

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from alexnet_jax.model.layers import TOWER, Activations, Keys, Layer, LocalResponseNorm, MaxPool, NormPool, ReLU
from alexnet_jax.model.network import Network

Params = dict[str, dict[str, Array]]
"""Layer name to {"kernel", "bias"}. In one tower as a layer uses them; outside, stacked along a first axis of towers."""

HostParams = dict[str, dict[str, np.ndarray]]
"""The same as NumPy arrays, stacked: parameters at rest."""


Images = Float[Array, "batch height width 3"]
"""Pixels minus their mean, on the scale 0 to 255."""


def gather_towers(x: Activations) -> Activations:
    """Every tower's activations along the channels, tower 0 first. The only communication in the model."""
    return lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True)


def activations(network: Network, params: Params, images: Images, keys: Keys | None = None) -> dict[str, Activations]:
    """What each layer of this tower puts out, by layer name; the last are the tower's share of the logits.

    Args:
      network: the layers.
      params: this tower's parameters.
      images: pixels minus their mean, on the scale 0 to 255.
      keys: one random key for each image, for dropout; None at test.
    """
    return _apply(network.named_layers, params, images, keys)


def logits(network: Network, params: Params, images: Images, keys: Keys | None = None) -> Activations:
    """This tower's share of the logits, [batch, classes of the tower]; arguments as for `activations`."""
    layers = fuse_norm_pool(network.named_layers)
    return _apply(layers, params, images, keys)[list(layers)[-1]]


def features(network: Network, layer: str, params: Params, images: Images, keys: Keys | None = None) -> Activations:
    """What `layer` of this tower puts out, [batch, features]; arguments as for `activations`."""
    return activations(network, params, images, keys)[layer].reshape(len(images), -1)


def fuse_norm_pool(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """The same layers, with ReLU, response normalization and pooling in a row as one, called after the last of them."""
    remaining, result = list(layers.items()), {}
    while remaining:
        match [layer for _, layer in remaining[:3]]:
            case [ReLU(), LocalResponseNorm() as norm, MaxPool() as pool]:
                result[remaining[2][0]] = NormPool(norm, pool)
                remaining = remaining[3:]
            case _:
                name, layer = remaining.pop(0)
                result[name] = layer
    return result


def init(network: Network, key: Key[Array, ""]) -> Params:
    """Initial parameters of this tower."""
    key = jax.random.fold_in(key, lax.axis_index(TOWER))
    x = jax.numpy.zeros((1, network.input_size, network.input_size, 3))
    params: Params = {}
    for name, layer in network.named_layers.items():
        x, variables = layer.init_with_output(jax.random.fold_in(key, _number(name)), _input(layer, x))
        if "params" in variables:
            params[name] = cast(dict[str, Array], variables["params"])
    return params


def parameter_shapes(network: Network) -> dict[str, dict[str, tuple[int, ...]]]:
    """Of the parameters, stacked along a first axis of towers."""
    stacked = jax.vmap(partial(init, network), in_axes=None, axis_name=TOWER, axis_size=network.towers)
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(stacked, jax.eval_shape(jax.random.key, 0)))


def _apply(layers: Mapping[str, Layer], params: Params, images: Images, keys: Keys | None) -> dict[str, Activations]:
    outputs: dict[str, Activations] = {}
    x = images
    for name, layer in layers.items():
        own_keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, _number(name))
        with jax.named_scope(name):
            x = cast(Array, layer.apply({"params": params.get(name, {})}, _input(layer, x), own_keys))
        outputs[name] = x
    return outputs


def _input(layer: Layer, x: Activations) -> Activations:
    return gather_towers(x) if layer.reads == "all" else x


def _number(name: str) -> int:
    """Tells the layers' random numbers apart. By name, so that a layer keeps its own when others come or go."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
