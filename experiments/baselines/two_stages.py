"""Config of the quickstart network's first two stages and a linear classifier, for comparison with `jarrett.py`.

    make experiment EXP=baselines/networks ARGS="--data caltech101 --images 30 --config experiments/baselines/two_stages.py"

A stage is a convolution, ReLU, response normalization and max pooling. See `jarrett.py`.
"""

from dataclasses import replace

from alexnet_jax.configs import load_config
from alexnet_jax.model.alexnet import QUICKSTART
from alexnet_jax.model.layers import Dense, Dropout
from alexnet_jax.model.network import Network

NETWORK = Network(
    name="two_stages",
    input_size=QUICKSTART.input_size,
    layers=(*QUICKSTART.layers[:8], Dropout(0.8), Dense(10, name="fc3", reads="all", std=0.002)),
)

CONFIG = replace(load_config("quickstart"), network=NETWORK, default_data="caltech101")
