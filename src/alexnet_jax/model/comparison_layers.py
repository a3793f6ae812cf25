"""Layers of networks that the paper's is compared with: ablations, cuda-convnet's CIFAR-10 networks, Caffe and torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from alexnet_jax.model.layers import Conv, Dropout, Layer, Weighted
from alexnet_kernels import response_norm
from alexnet_kernels.reference import pooled_size


class GroupedConv(Conv):
    """Convolution in groups, of which each reads its share of the maps: what became of the towers on one device.

    Attributes:
      groups: of maps, in order; the first kernels read the first group.
    """

    groups: int = 2


class LocallyConnected(Weighted):
    """Like a convolution of stride 1, but every place has kernels and biases of its own: `local` of cuda-convnet.

    Attributes:
      kernel: side of a kernel, pixels; odd. The image is padded with zeros to keep its size.
    """

    kernel: int = 3

    @nn.compact
    def __call__(self, x, keys=None):
        batch, height, width, channels = x.shape
        half = self.kernel // 2
        padded = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
        shifts = [(row, column) for row in range(self.kernel) for column in range(self.kernel)]
        windows = jnp.stack([padded[:, row : row + height, column : column + width] for row, column in shifts], axis=3)
        windows = windows.reshape(batch, height * width, -1).swapaxes(0, 1)
        kernel, bias = self.kernel_and_bias(x, height * width, self.kernel**2 * channels, places=height * width)
        return (windows @ kernel + bias[:, None]).swapaxes(0, 1).reshape(batch, height, width, -1)


class Standardize(Layer):
    """Divides the colors of an image, less their mean, by their deviation.

    Attributes:
      deviation: of red, green and blue, gray levels.
    """

    short = "standardize"

    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, x, keys=None):
        return x / jnp.asarray(self.deviation, x.dtype)


class Tanh(Layer):
    """tanh(x), the standard way to model a neuron's output at the time (paper, section 3.1)."""

    short = "tanh"

    def __call__(self, x, keys=None):
        return jnp.tanh(x)


class AbsTanh(Layer):
    """|tanh(x)|, which section 3.1 contrasts: Jarrett et al. on Caltech-101."""

    short = "abs_tanh"

    def __call__(self, x, keys=None):
        return jnp.abs(jnp.tanh(x))


class Sigmoid(Layer):
    """1 / (1 + e^-x) (paper, section 3.1)."""

    short = "sigmoid"

    def __call__(self, x, keys=None):
        return jax.nn.sigmoid(x)


class ContrastNorm(Layer):
    """`LocalResponseNorm` of what is left when the mean over the window is subtracted, which the paper's does not do.

    Attributes:
      size, k, alpha, beta: as in `LocalResponseNorm`.
    """

    short = "contrast_norm"

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __call__(self, x, keys=None):
        before = self.size // 2
        edges = ((0, 0),) * (x.ndim - 1) + ((before, self.size - 1 - before),)

        def total(x: Array) -> Array:
            window = (1,) * (x.ndim - 1) + (self.size,)
            return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, edges)

        mean = total(x) / total(jnp.ones((1,) * (x.ndim - 1) + x.shape[-1:], x.dtype))
        return response_norm(x - mean, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta)


class Trim(Layer):
    """Leaves out the last rows and columns where the image's side is no multiple of `of`: no square overruns its edge then.

    Attributes:
      of: pixels.
    """

    short = "trim"

    of: int = 2

    def __call__(self, x, keys=None):
        height, width = (side - side % self.of for side in x.shape[1:3])
        return x[:, :height, :width]


class AvgPool(Layer):
    """Average-pooling, of cuda-convnet's first networks for CIFAR-10. As in `MaxPool`, the last square may overrun the edge;
    the average is of what lies within.

    Attributes:
      size, stride: as in `MaxPool`.
    """

    short = "pool"

    size: int = 3
    stride: int = 2

    def __call__(self, x, keys=None):
        overrun = [(pooled_size(side, self.size, self.stride) - 1) * self.stride + self.size - side for side in x.shape[1:3]]
        edges = ((0, 0), *((0, beyond) for beyond in overrun), (0, 0))

        def total(x: Array) -> Array:
            window, strides = (1, self.size, self.size, 1), (1, self.stride, self.stride, 1)
            return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, strides, edges)

        return total(x) / total(jnp.ones((1, *x.shape[1:-1], 1), x.dtype))


class InvertedDropout(Dropout):
    """`Dropout` that divides what it keeps by `keep` in training, and does nothing at test: that of Caffe and PyTorch.

    Either way the mean of a unit is the same in training and at test, but not from one way to the other: a network's weights
    belong to its own.
    """

    def __call__(self, x, keys=None):
        return x if keys is None else super().__call__(x, keys) / self.keep
