"""Layers of the comparison networks: ablations, cuda-convnet's CIFAR-10 networks, and those of Caffe and torchvision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from alexnet_jax.model.layers import Conv, Dropout, Layer, WeightedLayer
from alexnet_jax.model.lowering import operation_per_tower
from alexnet_kernels import response_norm
from alexnet_kernels.max_pool import pixels_past_edge


class GroupedConv(Conv):
    """Grouped convolution: each group of kernels reads one group of maps. Replaces towers in networks for one device.

    Attributes:
      groups: number of groups. The first group of kernels reads the first group of maps, and so on.
    """

    groups: int = 2


class LocallyConnected(WeightedLayer):
    """Locally connected layer, `local` of cuda-convnet: a convolution of stride 1 with separate parameters at every position.

    Attributes:
      kernel: side of a kernel, pixels; odd. The image is padded with zeros to keep its size.
    """

    kernel: int = 3

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        size, half, positions = self.kernel, self.kernel // 2, height * width
        kernel, bias = self.kernel_and_bias(x, positions, size**2 * channels, bias_positions=positions)
        kernel = kernel.reshape(height, width, size, size * channels, -1)
        # Positions first, as in the kernel: every position is a matrix product over the batch, one for each row of the window.
        # Windows of one row have a third of the bytes of whole ones, if the kernel has three rows.
        padded = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0))).transpose(1, 2, 0, 3)
        windows = jnp.concatenate([padded[:, column : column + width] for column in range(size)], axis=-1)
        product = partial(jnp.einsum, "hwbc,hwco->hwbo", preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
        products = [product(windows[row : row + height], kernel[:, :, row]) for row in range(size)]
        y = sum(products[1:], products[0]).astype(x.dtype)
        return (y.reshape(positions, batch, -1) + bias[:, None]).swapaxes(0, 1).reshape(batch, height, width, -1)


class Standardize(Layer):
    """Division of each color of an image by its standard deviation. The mean must already be subtracted.

    Attributes:
      deviation: standard deviations of red, green and blue, on the scale 0 to 255.
    """

    short_name = "standardize"

    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, x):
        return x / jnp.asarray(self.deviation, x.dtype)


class Tanh(Layer):
    """Hyperbolic tangent, the standard nonlinearity at the time of the paper (section 3.1)."""

    short_name = "tanh"

    def __call__(self, x):
        return jnp.tanh(x)


class AbsTanh(Layer):
    """|tanh(x)|, which Jarrett et al. used on Caltech-101 (paper, section 3.1)."""

    short_name = "abs_tanh"

    def __call__(self, x):
        return jnp.abs(jnp.tanh(x))


class Sigmoid(Layer):
    """Logistic function, 1 / (1 + e^-x) (paper, section 3.1)."""

    short_name = "sigmoid"

    def __call__(self, x):
        return jax.nn.sigmoid(x)


class ContrastNorm(Layer):
    """`LocalResponseNorm` after subtraction of the mean over the same window; the paper's normalization subtracts no mean.

    Attributes:
      size, k, alpha, beta: as in `LocalResponseNorm`.
    """

    short_name = "contrast_norm"

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __call__(self, x):
        before = self.size // 2
        padding = ((0, 0),) * (x.ndim - 1) + ((before, self.size - 1 - before),)

        def window_sum(x: Array) -> Array:
            window = (1,) * (x.ndim - 1) + (self.size,)
            return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, padding)

        mean = window_sum(x) / window_sum(jnp.ones((1,) * (x.ndim - 1) + x.shape[-1:], x.dtype))
        normalize = partial(response_norm, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta)
        return operation_per_tower(normalize, x - mean)


class Trim(Layer):
    """Crop to the largest height and width that are multiples of `multiple`, so that no pooling window extends past the edge.

    Attributes:
      multiple: divisor of the output's height and width, pixels.
    """

    short_name = "trim"

    multiple: int = 2

    def __call__(self, x):
        height, width = (side - side % self.multiple for side in x.shape[1:3])
        return x[:, :height, :width]


class AvgPool(Layer):
    """Average pooling, from cuda-convnet's first networks for CIFAR-10.

    As in `MaxPool`, the last window may extend past the edge; its average is over the pixels inside the image.

    Attributes:
      size, stride: as in `MaxPool`.
    """

    short_name = "pool"

    size: int = 3
    stride: int = 2

    def __call__(self, x):
        padding = ((0, 0), *((0, pixels_past_edge(side, self.size, self.stride)) for side in x.shape[1:3]), (0, 0))

        def window_sum(x: Array) -> Array:
            window, strides = (1, self.size, self.size, 1), (1, self.stride, self.stride, 1)
            return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, strides, padding)

        return window_sum(x) / window_sum(jnp.ones((1, *x.shape[1:-1], 1), x.dtype))


class InvertedDropout(Dropout):
    """Dropout of Caffe and PyTorch: kept units are divided by `keep` in training, and all units are unchanged at test.

    Weights trained with `Dropout` cannot be used with `InvertedDropout`, or vice versa: the mean activations differ by the
    factor `keep`.
    """

    def __call__(self, x):
        return super().__call__(x) / self.keep if self.has_rng("dropout") else x
