"""The four layouts in small: the layers of the full networks, a fraction of their kernels, an eighth of their pixels."""

from dataclasses import replace

import numpy as np

from alexnet_jax import NETWORKS, TWO_TOWER
from alexnet_jax.model.layers import Weighted
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams, parameter_shapes

_WIDTHS = {"conv1": 8, "conv2": 12, "conv3": 12, "conv4": 8, "conv5": 8, "fc6": 10, "fc7": 14, "fc8": 6}


def small(network: Network, input_size: int) -> Network:
    """The same layers, narrow, and larger at the start, so that an image has an effect on the last."""

    def narrowed(layer):
        return layer.clone(features=_WIDTHS[str(layer.name)]) if isinstance(layer, Weighted) else layer

    return replace(network, input_size=input_size, layers=tuple(map(narrowed, network.layers)))


SMALL_TWO_TOWER = small(TWO_TOWER, 96)
SMALL_BVLC = small(NETWORKS["bvlc_alexnet"], 99)
SMALL_CAFFENET = small(NETWORKS["caffenet"], 99)
SMALL_TORCHVISION = small(NETWORKS["torchvision_alexnet"], 96)
SMALL = (SMALL_TWO_TOWER, SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION)


def random_params(network: Network, seed: int = 0) -> HostParams:
    """Drawn so that activities keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": (rng.normal(size=of["kernel"]) * np.prod(of["kernel"][1:-1]) ** -0.5).astype(np.float32),
            "bias": rng.normal(0, 0.1, of["bias"]).astype(np.float32),
        }
        for name, of in parameter_shapes(network).items()
    }
