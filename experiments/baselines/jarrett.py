"""Config of a network with the layers of Jarrett et al. 2009, which section 3.1 of the paper names.

    make experiment EXP=baselines/networks ARGS="--data caltech101 --images 30 --config experiments/baselines/jarrett.py"

The paper says that |tanh| is reported to work well on Caltech-101 with contrast normalization and average pooling, and that the
reason is another than that for ReLU: on so few images, overfitting matters, not how fast a network learns its training images.
The network has two stages of a convolution, |tanh|, local contrast normalization over all maps of a tower, and average pooling,
and then a linear classifier. `two_stages.py` is the same network with ReLU, response normalization and max pooling. Because tanh
saturates, pixels are divided by their standard deviation here, and the initial weights keep the scale of the activations near 1.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.configs import load_config
from alexnet_jax.model.comparison_layers import AbsTanh, AvgPool, Standardize
from alexnet_jax.model.layers import Conv, Dense, Dropout, Layer
from alexnet_jax.model.network import Network


class LocalContrastNorm(Layer):
    """Subtraction and division by local mean and standard deviation (Jarrett et al. 2009).

    Both are weighted by a Gaussian over a square and are over all maps of the tower: v = x - mean(x), and y = v / max(c, σ) with
    σ = √mean(v²), where c is the mean of σ over the positions of an image. Weights are normalized at the edges, too.

    Attributes:
      size: side of the square, pixels; odd.
      deviation: standard deviation of the Gaussian, pixels.
    """

    short_name = "contrast_norm"

    size: int = 9
    deviation: float = 2.0

    def __call__(self, x):
        offsets = np.arange(self.size) - self.size // 2
        weights = np.exp(-(offsets**2) / (2 * self.deviation**2)).astype(np.float32)

        def local_sum(maps):
            for shape in ((-1, 1), (1, -1)):
                kernel = jnp.asarray(weights.reshape(*shape, 1, 1), maps.dtype)
                maps = lax.conv_general_dilated(maps, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            return maps

        inside = local_sum(jnp.ones((1, *x.shape[1:3], 1), x.dtype))

        def local_mean(maps):
            return local_sum(maps.mean(axis=-1, keepdims=True)) / inside

        centered = x - local_mean(x)
        # A variance of zero has no finite gradient of its root.
        deviation = jnp.sqrt(local_mean(centered**2) + jnp.asarray(1e-6, x.dtype))
        return centered / jnp.maximum(deviation, deviation.mean(axis=(1, 2), keepdims=True))


NETWORK = Network(
    name="jarrett",
    input_size=112,
    layers=(
        Standardize((59.0, 59.0, 59.0), name="standardize"),
        Conv(32, name="conv1", kernel=11, stride=4, padding=(0, 3), std=0.05), AbsTanh(), LocalContrastNorm(), AvgPool(3, 2),
        Conv(64, name="conv2", kernel=5, padding=(2, 2), std=0.08), AbsTanh(), LocalContrastNorm(), AvgPool(3, 2),
        Dropout(0.8), Dense(10, name="fc3", reads="all"),
    ),
)  # fmt: skip

CONFIG = replace(load_config("quickstart"), network=NETWORK, default_data="caltech101", learning_rate=0.001)
