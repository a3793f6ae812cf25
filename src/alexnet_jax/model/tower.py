"""Pure functions that initialize and apply one tower of a network.

They run inside a mapped axis named `TOWER`, provided either by `shard_map` (one device per tower) or by `vmap` (one device).
"""

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
"""Parameters {layer: {"kernel": ..., "bias": ...}}: those of one tower inside the mapped axis; stacked along a leading tower axis
outside."""

HostParams = dict[str, dict[str, np.ndarray]]
"""Parameters as NumPy arrays, stacked along a leading tower axis."""

Images = Float[Array, "batch height width 3"]
"""Pixels on the scale 0 to 255, minus their mean."""


def gather_towers(x: Activations) -> Activations:
    """Concatenate the activations of all towers along the channels, tower 0 first: the only communication in the model."""
    return lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True)


def activations(network: Network, params: Params, images: Images, keys: Keys | None = None) -> dict[str, Activations]:
    """Compute the output of every layer of this tower.

    Args:
      network: network to apply.
      params: parameters of this tower.
      images: pixels on the scale 0 to 255, minus their mean.
      keys: one random key for each image, for dropout; None at test.

    Returns:
      Outputs by layer name. The last one is this tower's part of the logits.
    """
    return _apply(network.named_layers, params, images, keys)


def logits(network: Network, params: Params, images: Images, keys: Keys | None = None) -> Activations:
    """Compute this tower's part of the logits, [batch, classes of the tower]. See `activations` for the arguments."""
    layers = fuse_norm_pool(network.named_layers)
    return _apply(layers, params, images, keys)[list(layers)[-1]]


def features(network: Network, layer: str, params: Params, images: Images, keys: Keys | None = None) -> Activations:
    """Compute the output of one layer of this tower, [batch, features]. See `activations` for the other arguments."""
    return activations(network, params, images, keys)[layer].reshape(len(images), -1)


def fuse_norm_pool(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Replace each sequence of ReLU, response normalization and max-pooling by one `NormPool` with the name of the pooling."""
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
    """Initialize the parameters of this tower."""
    key = jax.random.fold_in(key, lax.axis_index(TOWER))
    x = jax.numpy.zeros((1, network.input_size, network.input_size, 3))
    params: Params = {}
    for name, layer in network.named_layers.items():
        x, variables = layer.init_with_output(jax.random.fold_in(key, _name_hash(name)), _input(layer, x))
        if "params" in variables:
            params[name] = cast(dict[str, Array], variables["params"])
    return params


def parameter_shapes(network: Network) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of the parameters, stacked along a leading tower axis."""
    stacked = jax.vmap(partial(init, network), in_axes=None, axis_name=TOWER, axis_size=network.towers)
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(stacked, jax.eval_shape(jax.random.key, 0)))


def _apply(layers: Mapping[str, Layer], params: Params, images: Images, keys: Keys | None) -> dict[str, Activations]:
    outputs: dict[str, Activations] = {}
    x = images
    for name, layer in layers.items():
        layer_keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, _name_hash(name))
        with jax.named_scope(name):
            x = cast(Array, layer.apply({"params": params.get(name, {})}, _input(layer, x), layer_keys))
        outputs[name] = x
    return outputs


def _input(layer: Layer, x: Activations) -> Activations:
    return gather_towers(x) if layer.reads == "all" else x


def _name_hash(name: str) -> int:
    """Return a hash of a layer's name to fold into random keys, so that a layer's keys do not depend on other layers."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
