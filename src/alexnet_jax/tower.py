"""One tower as two pure functions. They are written for an axis named `TOWER` and cannot tell who provides it."""

from typing import cast

import jax
from jax import lax
from jaxtyping import Array, Float, Key

from alexnet_jax.architectures import Network
from alexnet_jax.layers import TOWER, Activations, Keys, Layer

Params = dict[str, dict[str, Array]]
"""Layer name to {"kernel", "bias"}. In one tower as a layer uses them; outside, stacked along a first axis of towers."""


def gather_towers(x: Activations) -> Activations:
    """Every tower's activations along the channels, tower 0 first. The only communication in the model."""
    return lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True)


def activations(
    network: Network, params: Params, images: Float[Array, "batch height width 3"], keys: Keys | None = None
) -> dict[str, Activations]:
    """What each layer of this tower puts out, by layer name; the last are the tower's share of the logits.

    Args:
      network: the layers.
      params: this tower's parameters.
      images: pixels minus their mean, on the scale 0 to 255.
      keys: one random key for each image, for dropout; None at test.
    """
    outputs: dict[str, Activations] = {}
    x = images
    for index, (name, layer) in enumerate(network.named_layers.items()):
        with jax.named_scope(name):
            x = cast(Array, layer.apply({"params": params.get(name, {})}, _input(layer, x), _fold(keys, index)))
        outputs[name] = x
    return outputs


def init(network: Network, key: Key[Array, ""]) -> Params:
    """Initial parameters of this tower."""
    key = jax.random.fold_in(key, lax.axis_index(TOWER))
    x = jax.numpy.zeros((1, network.input_size, network.input_size, 3))
    params: Params = {}
    for index, (name, layer) in enumerate(network.named_layers.items()):
        x, variables = layer.init_with_output(jax.random.fold_in(key, index), _input(layer, x))
        if "params" in variables:
            params[name] = cast(dict[str, Array], variables["params"])
    return params


def _input(layer: Layer, x: Activations) -> Activations:
    return gather_towers(x) if layer.reads == "all" else x


def _fold(keys: Keys | None, index: int) -> Keys | None:
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, index)
