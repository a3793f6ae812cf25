"""The networks of the paper and of the original code, as lists of layers.

The lists follow Fig. 2 of the paper. `features` counts kernels over both towers, as section 3.5 does. `reads="all"` marks layers
whose kernels read the maps of both towers; the other layers read those of their own tower.
"""

from dataclasses import replace

from alexnet_jax.model.layers import Conv, Dense, Dropout, LocalResponseNorm, MaxPool, ReLU, SameMapNorm
from alexnet_jax.model.network import Network

TWO_TOWER = Network(
    name="two_tower",
    layers=(
        Conv(96, name="conv1", kernel=11, stride=4, padding=(0, 3)), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Conv(256, name="conv2", kernel=5, padding=(2, 2), bias=1.0), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Conv(384, name="conv3", kernel=3, padding=(1, 1), reads="all"), ReLU(),
        Conv(384, name="conv4", kernel=3, padding=(1, 1), bias=1.0), ReLU(),
        Conv(256, name="conv5", kernel=3, padding=(1, 1), bias=1.0), ReLU(), MaxPool(3, 2),
        Dense(4096, name="fc6", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""The network as the paper describes it: shapes from section 3.5 and Fig. 2, initial weights and biases from section 5.
padding=(0, 3): 224 pixels give 55 outputs only if the last window of conv1 reads 3 pixels of zeros past the edge. conv1 has
55 x 55 x 96 = 290,400 neurons; with the 253,440 of Fig. 2's caption, the total would not be the paper's 650,000."""

SOURCE_145 = Network(
    name="source_145",
    layers=(
        Conv(96, name="conv1", kernel=11, stride=4, padding=(0, 3)),
        LocalResponseNorm(alpha=1e-4 / 5), MaxPool(3, 2), ReLU(),
        Conv(256, name="conv2", kernel=5, padding=(2, 2), bias=1.0),
        ReLU(), LocalResponseNorm(alpha=1e-4 / 5), SameMapNorm(size=5, alpha=0.001 / 5**2), MaxPool(3, 2),
        Conv(384, name="conv3", kernel=3, padding=(1, 1), reads="all", std=0.03), ReLU(),
        Conv(384, name="conv4", kernel=3, padding=(1, 1), bias=1.0, std=0.03), ReLU(),
        Conv(256, name="conv5", kernel=3, padding=(1, 1), bias=1.0, std=0.03), MaxPool(3, 2), ReLU(),
        Dense(4096, name="fc6", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""The network whose logs contain the paper's results: layers-145.cfg of the original code, which divides alpha by `size`."""

ONE_GPU = Network(
    name="one_gpu",
    towers=1,
    layers=(
        Conv(48, name="conv1", kernel=11, stride=4, padding=(0, 3)), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Conv(128, name="conv2", kernel=5, padding=(2, 2), bias=1.0), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Conv(192, name="conv3", kernel=3, padding=(1, 1)), ReLU(),
        Conv(192, name="conv4", kernel=3, padding=(1, 1), bias=1.0), ReLU(),
        Conv(256, name="conv5", kernel=3, padding=(1, 1), bias=1.0), ReLU(), MaxPool(3, 2),
        Dense(4096, name="fc6", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8"),
    ),
)  # fmt: skip
"""The one-GPU network of section 3.2 (footnote 2): one tower whose last convolution and dense layers have their full width."""

SIXTH_CONV = Network(
    name="sixth_conv",
    layers=(
        *TWO_TOWER.up_to("conv5/pool").layers,
        Conv(256, name="conv6", kernel=3, padding=(1, 1), reads="all", bias=1.0), ReLU(),
        Dense(4096, name="fc6", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""`TWO_TOWER` with "an extra sixth convolutional layer over the last pooling layer" (section 6); its shape is from
layers-141.cfg."""

SOURCE_146 = Network(
    name="source_146",
    layers=(
        *SOURCE_145.up_to("conv5/relu").layers,
        Conv(256, name="conv6", kernel=3, padding=(1, 1), reads="all", bias=1.0, std=0.03), ReLU(),
        Dense(4096, name="fc6", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""Net 146 of the original code: net 145 with a sixth convolution. Its log contains the results of "1 CNN*" in Table 2."""

FALL2009 = replace(SOURCE_146.with_num_classes(10_184), name="fall2009")
"""`SOURCE_146` for the 10,184 classes of ImageNet's Fall 2009 release (section 6; layers-146-2009.cfg)."""

FALL2011 = Network(
    name="fall2011",
    layers=(
        *SOURCE_146.layers[:-1],
        Dense(2048, name="bottleneck", reads="all"),
        Dense(21_843, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""`SOURCE_146` for the classes of the Fall 2011 release (layers-146-2011.cfg). Without the linear bottleneck of 1,024 units
per tower, fc8 would have 4,096 × 10,922 weights in each tower, more than all other layers of the tower together."""

TWO_COLUMNS = Network(
    name="two_columns",
    layers=(
        Conv(96, name="conv1", kernel=11, stride=4, padding=(0, 3)),
        LocalResponseNorm(alpha=1e-4 / 5), MaxPool(3, 2), ReLU(),
        Conv(320, name="conv2", kernel=5, padding=(2, 2), bias=1.0),
        ReLU(), LocalResponseNorm(alpha=1e-4 / 5), SameMapNorm(size=5, alpha=0.001 / 5**2), MaxPool(3, 2),
        Conv(384, name="conv3", kernel=3, padding=(1, 1), std=0.03), ReLU(),
        Conv(384, name="conv4", kernel=3, padding=(1, 1), bias=1.0, std=0.03), ReLU(),
        Conv(256, name="conv5", kernel=3, padding=(1, 1), bias=1.0, std=0.03), MaxPool(3, 2), ReLU(),
        Dense(8192, name="fc6", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""Two columns that are connected only in the last layer: layers-150.cfg. To have nearly as many parameters as net 145, a column
has 160 kernels in conv2 instead of 128, and 4,096 units in fc6 instead of 2,048; fc7 has 2,048 units in both nets. The numbers
above count both columns."""

QUICKSTART = Network(
    name="quickstart",
    input_size=112,
    layers=(
        Conv(32, name="conv1", kernel=11, stride=4, padding=(0, 3)), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Conv(64, name="conv2", kernel=5, padding=(2, 2), std=0.05), ReLU(), LocalResponseNorm(), MaxPool(3, 2),
        Conv(96, name="conv3", kernel=3, padding=(1, 1), reads="all", std=0.06), ReLU(),
        Conv(96, name="conv4", kernel=3, padding=(1, 1), std=0.07), ReLU(),
        Conv(64, name="conv5", kernel=3, padding=(1, 1), std=0.07), ReLU(), MaxPool(3, 2),
        Dense(256, name="fc6", reads="all", std=0.05), ReLU(), Dropout(0.8),
        Dense(256, name="fc7", reads="all", std=0.09), ReLU(), Dropout(0.8),
        Dense(10, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""Small two-tower network that trains on a CPU in minutes, with a quarter of the pixels and fewer kernels. Initial weights are
larger because the layers have fewer inputs, and activations would otherwise shrink from layer to layer. Initial biases are zero.
Dropout removes a fifth of the units instead of half, because the layers have few units."""
