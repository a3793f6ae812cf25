"""The networks, as lists that read like Fig. 2 of the paper.

`features` counts kernels over both towers. `reads="all"` marks the layers whose kernels see every map of the layer before,
from both towers; everything else stays inside its tower.
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
"""The paper's network, by its prose: section 3.5 and Fig. 2 for the shapes, section 5 for the initial weights and biases.
padding=(0, 3): 224 pixels give 55 outputs only if the last window of conv1 reads 3 pixels of zeros beyond the edge."""

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
"""The network whose logs are the paper's tables: layers-145.cfg of the original code. It divides alpha by the window's size."""

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
"""The comparison of section 3.2 (footnote 2): one tower, whose last convolution and dense layers keep their full width."""

SIXTH_CONV = Network(
    name="sixth_conv",
    layers=(
        *TWO_TOWER.layers[:15],
        Conv(256, name="conv6", kernel=3, padding=(1, 1), reads="all", bias=1.0), ReLU(),
        Dense(4096, name="fc6", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", reads="all", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""With "an extra sixth convolutional layer over the last pooling layer" (section 6); its shape is in layers-141.cfg."""

SOURCE_146 = Network(
    name="source_146",
    layers=(
        *SOURCE_145.layers[:16],
        Conv(256, name="conv6", kernel=3, padding=(1, 1), reads="all", bias=1.0, std=0.03), ReLU(),
        *SOURCE_145.layers[16:],
    ),
)  # fmt: skip
"""Net 146 of the original code, whose log is "1 CNN*" of Table 2: net 145 with the sixth convolution."""

FALL2009 = replace(SOURCE_146.with_num_classes(10_184), name="fall2009")
"""The same for the 10,184 classes of ImageNet's Fall 2009 release (section 6; layers-146-2009.cfg)."""

FALL2011 = Network(
    name="fall2011",
    layers=(
        *SOURCE_146.layers[:-1],
        Dense(2048, name="bottleneck", reads="all"),
        Dense(21_843, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""The same for the Fall 2011 release (layers-146-2011.cfg). Each tower's 4,096 × 10,922 weights would be as many as all others:
1,024 units a tower lie between, without a nonlinearity."""

TWO_COLUMNS = Network(
    name="two_columns",
    layers=(
        *SOURCE_145.layers[:4],
        Conv(320, name="conv2", kernel=5, padding=(2, 2), bias=1.0), *SOURCE_145.layers[5:9],
        Conv(384, name="conv3", kernel=3, padding=(1, 1), std=0.03), *SOURCE_145.layers[10:16],
        Dense(8192, name="fc6", bias=1.0), ReLU(), Dropout(0.5),
        Dense(4096, name="fc7", bias=1.0), ReLU(), Dropout(0.5),
        Dense(1000, name="fc8", reads="all"),
    ),
)  # fmt: skip
"""Two columns that meet at the classes alone: layers-150.cfg. To have nearly as many parameters, each has 160 kernels in conv2,
where a tower of net 145 has 128, and 4,096 units in fc6, where it has 2,048; fc7 has 2,048, as ever. Here they count over
both."""

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
"""The two towers made small, for a CPU and minutes: a quarter of the pixels, a fraction of the kernels. The weights of a
layer with fewer inputs start larger, or the signal would fade on its way up. So few units can spare a fifth of themselves,
not half."""
