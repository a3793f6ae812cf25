"""Small versions of the networks whose weights can be imported, with fewer kernels and smaller images."""

from dataclasses import replace

import numpy as np

from alexnet_jax import NETWORKS, TWO_TOWER
from alexnet_jax.model.layers import WeightedLayer
from alexnet_jax.model.network import Network
from alexnet_jax.model.tower import HostParams, parameter_shapes

_WIDTHS = {
    "conv1": 8, "conv2": 12, "conv3": 12, "conv4": 8, "conv5": 8, "conv6": 8, "fc6": 10, "fc7": 14, "bottleneck": 4, "fc8": 6,
}  # fmt: skip


def small(network: Network, input_size: int) -> Network:
    """Return a copy of the network with the widths in `_WIDTHS` and a different input size."""

    def narrow(layer):
        return layer.clone(features=_WIDTHS[str(layer.name)]) if isinstance(layer, WeightedLayer) else layer

    return replace(network, input_size=input_size, layers=tuple(map(narrow, network.layers)))


SMALL_TWO_TOWER = small(TWO_TOWER, 96)
SMALL_BVLC = small(NETWORKS["bvlc_alexnet"], 99)
SMALL_CAFFENET = small(NETWORKS["caffenet"], 99)
SMALL_TORCHVISION = small(NETWORKS["torchvision_alexnet"], 96)
SMALL = (SMALL_TWO_TOWER, SMALL_BVLC, SMALL_CAFFENET, SMALL_TORCHVISION)


def random_params(network: Network, seed: int = 0) -> HostParams:
    """Return random parameters, scaled so that the variance of activations is similar in all layers."""
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": (rng.normal(size=shapes["kernel"]) * np.prod(shapes["kernel"][1:-1]) ** -0.5).astype(np.float32),
            "bias": rng.normal(0, 0.1, shapes["bias"]).astype(np.float32),
        }
        for name, shapes in parameter_shapes(network).items()
    }
