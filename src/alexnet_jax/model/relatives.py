"""AlexNet as defined by Caffe and torchvision, with one tower each, for their published weights.

Their dropout divides by the keep probability in training and is the identity at test. Input channels are in RGB order, even if
the original reads BGR.
"""

from alexnet_jax.model.comparison_layers import GroupedConv, InvertedDropout, Standardize
from alexnet_jax.model.layers import Conv, Dense, LocalResponseNorm, MaxPool, ReLU
from alexnet_jax.model.network import Network

BVLC_ALEXNET = Network(
    name="bvlc_alexnet",
    towers=1,
    input_size=227,
    layers=(
        Conv(96, name="conv1", kernel=11, stride=4),
        ReLU(), LocalResponseNorm(k=1.0, alpha=1e-4 / 5), MaxPool(3, 2),
        GroupedConv(256, name="conv2", kernel=5, padding=(2, 2), bias=0.1),
        ReLU(), LocalResponseNorm(k=1.0, alpha=1e-4 / 5), MaxPool(3, 2),
        Conv(384, name="conv3", kernel=3, padding=(1, 1)), ReLU(),
        GroupedConv(384, name="conv4", kernel=3, padding=(1, 1), bias=0.1), ReLU(),
        GroupedConv(256, name="conv5", kernel=3, padding=(1, 1), bias=0.1), ReLU(), MaxPool(3, 2),
        Dense(4096, name="fc6", std=0.005, bias=0.1), ReLU(), InvertedDropout(0.5),
        Dense(4096, name="fc7", std=0.005, bias=0.1), ReLU(), InvertedDropout(0.5),
        Dense(1000, name="fc8"),
    ),
)  # fmt: skip
"""models/bvlc_alexnet of Caffe. Grouped convolutions replace the two towers. Response normalization is across the maps of both
groups, with k = 1 and alpha divided by the window size. The input has 227 x 227 pixels. Biases that are 1 in the paper are
0.1."""

CAFFENET = Network(
    name="caffenet",
    towers=1,
    input_size=227,
    layers=(
        Conv(96, name="conv1", kernel=11, stride=4),
        ReLU(), MaxPool(3, 2), LocalResponseNorm(k=1.0, alpha=1e-4 / 5),
        GroupedConv(256, name="conv2", kernel=5, padding=(2, 2), bias=1.0),
        ReLU(), MaxPool(3, 2), LocalResponseNorm(k=1.0, alpha=1e-4 / 5),
        Conv(384, name="conv3", kernel=3, padding=(1, 1)), ReLU(),
        GroupedConv(384, name="conv4", kernel=3, padding=(1, 1), bias=1.0), ReLU(),
        GroupedConv(256, name="conv5", kernel=3, padding=(1, 1), bias=1.0), ReLU(), MaxPool(3, 2),
        Dense(4096, name="fc6", std=0.005, bias=1.0), ReLU(), InvertedDropout(0.5),
        Dense(4096, name="fc7", std=0.005, bias=1.0), ReLU(), InvertedDropout(0.5),
        Dense(1000, name="fc8"),
    ),
)  # fmt: skip
"""models/bvlc_reference_caffenet of Caffe: `BVLC_ALEXNET` with pooling before normalization, and the paper's biases."""

TORCHVISION_ALEXNET = Network(
    name="torchvision_alexnet",
    towers=1,
    layers=(
        Standardize((58.395, 57.12, 57.375), name="standardize"),
        Conv(64, name="conv1", kernel=11, stride=4, padding=(2, 2), std=0.0303), ReLU(), MaxPool(3, 2),
        Conv(192, name="conv2", kernel=5, padding=(2, 2), std=0.0144), ReLU(), MaxPool(3, 2),
        Conv(384, name="conv3", kernel=3, padding=(1, 1), std=0.0139), ReLU(),
        Conv(256, name="conv4", kernel=3, padding=(1, 1), std=0.0098), ReLU(),
        Conv(256, name="conv5", kernel=3, padding=(1, 1), std=0.0120), ReLU(), MaxPool(3, 2),
        InvertedDropout(0.5), Dense(4096, name="fc6", std=0.0060), ReLU(),
        InvertedDropout(0.5), Dense(4096, name="fc7", std=0.0090), ReLU(),
        Dense(1000, name="fc8", std=0.0090),
    ),
)  # fmt: skip
"""torchvision's alexnet, from "One weird trick for parallelizing convolutional neural networks": no groups, no normalization, and
dropout before fc6 and fc7 instead of after. PyTorch draws initial weights uniformly between ±1 / sqrt(inputs); std is the
standard deviation of that distribution, and initial biases are zero. The adaptive average pooling to 6 x 6 is omitted: at 224
pixels its input already has that size."""
