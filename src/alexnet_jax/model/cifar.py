"""The CIFAR-10 networks of cuda-convnet (example-layers/), with one tower each.

Their normalization across maps has k = 1 and a window of nine maps; alpha is divided by nine, as in the original code.
"""

from alexnet_jax.model.comparison_layers import AvgPool, LocallyConnected
from alexnet_jax.model.layers import Conv, Dense, LocalResponseNorm, MaxPool, ReLU, SameMapNorm
from alexnet_jax.model.network import Network

FOUR_LAYERS_NORM = Network(
    name="cifar_norm",
    towers=1,
    input_size=24,
    layers=(
        Conv(64, name="conv1", kernel=5, padding=(2, 2), std=1e-4), ReLU(), MaxPool(3, 2),
        LocalResponseNorm(size=9, k=1.0, alpha=0.001 / 9),
        Conv(64, name="conv2", kernel=5, padding=(2, 2)), ReLU(),
        LocalResponseNorm(size=9, k=1.0, alpha=0.001 / 9), MaxPool(3, 2),
        LocallyConnected(64, name="local3", kernel=3, std=0.04), ReLU(),
        LocallyConnected(32, name="local4", kernel=3, std=0.04), ReLU(),
        Dense(10, name="fc10"),
    ),
)  # fmt: skip
"""layers-conv-local-11pct.cfg: two convolutions, two locally connected layers and the classifier. The paper quotes "a four-layer
CNN" with a test error of 13% without and 11% with normalization."""

FOUR_LAYERS = Network(
    name="cifar_plain",
    towers=1,
    input_size=24,
    layers=tuple(layer for layer in FOUR_LAYERS_NORM.layers if not isinstance(layer, LocalResponseNorm)),
)
"""`FOUR_LAYERS_NORM` without normalization. This is not layers-conv-local-13pct.cfg, which has half as many
kernels in local3 and a smaller weight decay in the last layer."""

THREE_CONVOLUTIONS = Network(
    name="cifar_19pct",
    towers=1,
    input_size=32,
    layers=(
        Conv(32, name="conv1", kernel=5, padding=(2, 2), std=1e-4), MaxPool(3, 2), ReLU(),
        Conv(32, name="conv2", kernel=5, padding=(2, 2)), ReLU(), AvgPool(3, 2),
        Conv(64, name="conv3", kernel=5, padding=(2, 2)), ReLU(), AvgPool(3, 2),
        Dense(10, name="fc10"),
    ),
)  # fmt: skip
"""layers-19pct.cfg: three convolutions and the classifier."""

HIDDEN_LAYER = Network(
    name="cifar_80sec",
    towers=1,
    input_size=32,
    layers=(*THREE_CONVOLUTIONS.layers[:-1], Dense(64, name="fc64", std=0.1), ReLU(), Dense(10, name="fc10", std=0.1)),
)
"""layers-80sec.cfg: `THREE_CONVOLUTIONS` with a hidden layer of 64 units."""

SAME_MAP_NORM = Network(
    name="cifar_18pct",
    towers=1,
    input_size=32,
    layers=(
        *THREE_CONVOLUTIONS.layers[:3], SameMapNorm(size=3, alpha=5e-5 / 3**2),
        *THREE_CONVOLUTIONS.layers[3:6], SameMapNorm(size=3, alpha=5e-5 / 3**2),
        *THREE_CONVOLUTIONS.layers[6:],
    ),
)  # fmt: skip
"""layers-18pct.cfg: `THREE_CONVOLUTIONS` with normalization within maps after the first two pooling layers."""

CIFAR_NETWORKS = {
    network.name: network for network in (FOUR_LAYERS, FOUR_LAYERS_NORM, THREE_CONVOLUTIONS, HIDDEN_LAYER, SAME_MAP_NORM)
}
"""The CIFAR-10 networks by name."""
