"""Small two-tower network for tests."""

from alexnet_jax.model.layers import Conv, Dense, Dropout, LocalResponseNorm, MaxPool, ReLU
from alexnet_jax.model.network import Network

TINY = Network(
    name="tiny",
    input_size=29,
    layers=(
        Conv(8, name="conv1", kernel=5, stride=2, padding=(0, 2), std=0.1), ReLU(), LocalResponseNorm(alpha=0.01), MaxPool(3, 2),
        Conv(12, name="conv2", kernel=3, padding=(1, 1), bias=1.0, std=0.2), ReLU(), LocalResponseNorm(alpha=0.01), MaxPool(3, 2),
        Conv(10, name="conv3", kernel=3, padding=(1, 1), reads="all", std=0.2), ReLU(),
        Dense(16, name="fc6", reads="all", bias=1.0, std=0.1), ReLU(), Dropout(0.5),
        Dense(7, name="fc7", reads="all", std=0.2),
    ),
)  # fmt: skip
"""Two-tower network with seven classes, which cannot be divided evenly between the towers."""
