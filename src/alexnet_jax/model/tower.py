"""One tower of a network as a Flax module, and the module of all towers on one device.

Flax is used as linen rather than NNX, because `shard_map` needs pure functions of explicit parameters, which can be sharded.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from alexnet_jax.model.layers import (
    TOWER,
    Activations,
    Conv,
    ConvPool,
    Dropout,
    Layer,
    LocalResponseNorm,
    MaxPool,
    NormPool,
    ReLU,
    WeightedLayer,
)
from alexnet_jax.model.lowering import Lowering, tower_lowering
from alexnet_jax.model.network import Network

Params = dict[str, dict[str, Array]]
"""Parameters {layer: {"kernel": ..., "bias": ...}}: those of one tower inside the mapped axis; stacked along a leading tower axis
outside."""

HostParams = dict[str, dict[str, np.ndarray]]
"""Parameters as NumPy arrays, stacked along a leading tower axis."""


class Tower(nn.Module):
    """One tower of a network: its layers in order, as submodules with the names of `Network.named_layers`.

    It runs inside a mapped axis named `TOWER`, provided by `shard_map` (one device per tower) or `vmap` (`stacked_towers`).
    Dropout is applied if `apply` is called with `rngs={"dropout": key}`.
    """

    network: Network
    lowering: Lowering = "separate"
    preserve_adopted_names = True  # the names of the layers are those of their parameters and intermediates

    def setup(self) -> None:
        """Adopt the layers of the network as submodules."""
        self.layers = [layer.clone(name=name) for name, layer in self.network.named_layers.items()]

    def __call__(self, images):
        """Compute this tower's part of the outputs of the last layer: for the logits, [batch, classes of the tower].

        Args:
          images: pixels on the scale 0 to 255, minus their mean, [batch, height, width, 3]; not annotated, because
            `nn.tabulate` passes shapes without arrays.
        """
        x = images
        with tower_lowering(self.lowering):
            for layer in self.layers:
                if layer.reads == "all":
                    with jax.named_scope(str(layer.name)):  # the operations of a compiled program have the names of layers
                        x = gather_towers(x)
                x = layer(x)
        return x


def gather_towers(x: Activations) -> Activations:
    """Concatenate the activations of all towers along the channels, tower 0 first: the only communication in the model."""
    return lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True)


def stacked_towers(network: Network, lowering: Lowering = "separate") -> nn.Module:
    """Return all towers of a network as one Flax module, for one device: `Tower` mapped by `nn.vmap`.

    Parameters, outputs and intermediates are stacked along a leading tower axis; all towers read the same images.

    Args:
      network: network to run.
      lowering: form of its layers; parameters, outputs and intermediates have the same shapes with either.

    Examples:
      >>> from alexnet_jax import QUICKSTART
      >>> towers, images = stacked_towers(QUICKSTART), jax.numpy.zeros((8, 112, 112, 3))
      >>> variables = jax.jit(towers.init)(jax.random.key(0), images)
      >>> logits, state = towers.apply(variables, images, capture_intermediates=True)
      >>> logits.shape, state["intermediates"]["conv1/relu"]["__call__"][0].shape
      ((2, 8, 5), (2, 8, 27, 27, 16))
    """
    towers: Any = nn.vmap(
        Tower,
        in_axes=None,  # type: ignore[reportArgumentType]
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": False},  # a dropout layer folds the tower into its key
        axis_size=network.towers,
        axis_name=TOWER,
    )
    return towers(network, lowering)


def rewrite_pooling(network: Network) -> Network:
    """Return a network that computes the same values in less time.

    ReLU, response normalization and max-pooling become one `NormPool` with the name of the pooling. A ReLU just before
    max-pooling follows it instead, where it has a quarter of the pixels: the maximum of `max(0, x)` is `max(0, maximum of x)`.
    For the same reason, the bias of a convolution before max-pooling is added after it: they become one `ConvPool` with the name
    of the convolution.
    """
    remaining = [layer.clone(name=name) for name, layer in network.named_layers.items()]
    layers: list[Layer] = []
    while remaining:
        # Subclasses, for example of users, may compute something else.
        match [layer if type(layer) in (Conv, ReLU, LocalResponseNorm, MaxPool) else None for layer in remaining[:3]]:
            case [ReLU(), LocalResponseNorm() as norm, MaxPool() as pool]:
                layers.append(NormPool(norm, pool, name=pool.name))
                del remaining[:3]
            case [ReLU() as relu, MaxPool() as pool, *_]:
                remaining[:2] = pool, relu
            case [Conv(), ReLU() as relu, MaxPool() as pool]:
                remaining[1:3] = pool, relu
            case [Conv() as conv, MaxPool() as pool, *_]:
                layers.append(ConvPool(conv.clone(name=None), pool, conv.reads, name=conv.name))
                del remaining[:2]
            case _:
                layers.append(remaining.pop(0))
    return replace(network, layers=tuple(layers))


def init(network: Network, key: jax.Array) -> Params:
    """Return initial parameters of all towers, stacked along a leading tower axis."""
    images = jax.numpy.zeros((1, network.input_size, network.input_size, 3))
    return cast(Params, stacked_towers(network).init(key, images)["params"])


def parameter_shapes(network: Network) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of the parameters, stacked along a leading tower axis."""
    # Every command that loads a network waits for this. To save three quarters of the time, no random numbers are drawn (std=0),
    # and layers that keep the shape of their input are left out; subclasses may change it, or have parameters.
    layers = [layer.clone(std=0.0) if isinstance(layer, WeightedLayer) else layer for layer in network.layers]
    changing = tuple(layer for layer in layers if type(layer) not in (ReLU, LocalResponseNorm, Dropout))
    shapes = jax.eval_shape(lambda: init(replace(network, layers=changing), jax.random.key(0)))
    return jax.tree.map(lambda leaf: leaf.shape, shapes)


def params_digest(params: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of the names, shapes and values of all arrays in nested dictionaries, in hexadecimal."""
    digest = hashlib.sha256()
    for path, values in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
