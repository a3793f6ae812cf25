"""The layers of AlexNet as Flax modules: a field for each hyper-parameter, and nothing about devices.

A layer is applied to one tower. `features` counts kernels over all towers, as the paper does, and the mapped axis `TOWER`
tells a layer how many towers share them. Parameters are float32; a layer computes in the type of its input.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key

from alexnet_jax.per_tower import once_per_tower, product
from alexnet_kernels import max_pool, norm_pool, response_norm
from alexnet_kernels.reference import pooled_size

TOWER = "tower"
"""Name of the axis along which the towers lie, whether a mesh of devices or `vmap` provides it."""

Activations = Float[Array, "batch ..."]
"""[batch, height, width, channels] between convolutions, [batch, features] after them."""
Keys = Key[Array, " batch"]
"""A random key for each image, for dropout."""


class Layer(nn.Module):
    """A step of one tower: `layer(x, keys)`, with a random key for each image in training and None at test.

    A layer without weights has no name of its own; `short` is what it is called after the name of the weighted one before it.
    """

    reads = "own"
    short = ""

    def __call__(self, x: Activations, keys: Keys | None = None) -> Activations:
        raise NotImplementedError


class Weighted(Layer):
    """What convolutional and fully-connected layers share: kernels divided among the towers.

    Attributes:
      features: kernels or units over all towers.
      reads: "own" for this tower's part of the layer before, "all" for every tower's (paper, section 3.2).
      std: standard deviation of the initial weights, drawn from a Gaussian around zero.
      bias: initial bias.
    """

    features: int
    reads: Literal["own", "all"] = "own"  # type: ignore[reportIncompatibleVariableOverride]
    std: float = 0.01
    bias: float = 0.0

    def kernel_and_bias(self, x: Activations, *shape: int, places: int | None = None) -> tuple[Array, Array]:
        """Parameters of one tower, in the type of `x`; `shape` is a kernel's without its features.

        Where `places` have biases of their own, these are [places, features].
        """
        width = -(-self.features // lax.axis_size(TOWER))
        kernel = self.param("kernel", nn.initializers.normal(self.std), (*shape, width), jnp.float32)
        of_bias = (width,) if places is None else (places, width)
        bias = self.param("bias", nn.initializers.constant(self.bias), of_bias, jnp.float32)
        return kernel.astype(x.dtype), bias.astype(x.dtype)


class Conv(Weighted):
    """Convolution with square kernels (paper, section 3.5).

    Attributes:
      kernel: side of a kernel, pixels.
      stride: pixels between neighbouring outputs.
      padding: zeros (before, after) the image on both axes.
    """

    groups = 1

    kernel: int = 3
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x, keys=None):
        kernel, bias = self.kernel_and_bias(x, self.kernel, self.kernel, x.shape[-1] // self.groups)
        convolve = partial(
            lax.conv_general_dilated,
            window_strides=(self.stride, self.stride),
            padding=(self.padding, self.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return once_per_tower(convolve)(x, kernel) + bias


class GroupedConv(Conv):
    """Convolution in groups, of which each reads its share of the maps: what became of the towers on one device.

    Attributes:
      groups: of maps, in order; the first kernels read the first group.
    """

    groups: int = 2


class Dense(Weighted):
    """Fully-connected layer; the maps of a convolution are flattened as (row, column, channel)."""

    @nn.compact
    def __call__(self, x, keys=None):
        x = x.reshape(x.shape[0], -1)
        kernel, bias = self.kernel_and_bias(x, x.shape[-1])
        return product(x, kernel) + bias


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
    """Divides the colours of an image, less their mean, by their deviation.

    Attributes:
      deviation: of red, green and blue, grey levels.
    """

    short = "standardize"

    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, x, keys=None):
        return x / jnp.asarray(self.deviation, x.dtype)


class ReLU(Layer):
    """max(0, x) (paper, section 3.1)."""

    short = "relu"

    def __call__(self, x, keys=None):
        return jax.nn.relu(x)


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


class LocalResponseNorm(Layer):
    """Response normalization across the maps of one tower, at one place (paper, section 3.3).

    Attributes:
      size: maps in the window (the paper's n).
      k, alpha, beta: constants of the paper's formula; `alpha` multiplies the plain sum of squares.
    """

    short = "norm"

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __call__(self, x, keys=None):
        return response_norm(x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta)


class SameMapNorm(Layer):
    """Response normalization over a square within each map: `rnorm` of the original code, not in the paper.

    Attributes:
      size: side of the square, pixels.
      k, alpha, beta: as in `LocalResponseNorm`.
    """

    short = "same_map_norm"

    size: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 5**2
    beta: float = 0.75

    def __call__(self, x, keys=None):
        return response_norm(x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta, axes=(-3, -2))


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


class MaxPool(Layer):
    """Max-pooling; overlapping when `size` exceeds `stride` (paper, section 3.4).

    Attributes:
      size: side of the pooled square, pixels (the paper's z).
      stride: pixels between squares (the paper's s).
    """

    short = "pool"

    size: int = 3
    stride: int = 2

    def __call__(self, x, keys=None):
        return max_pool(x, self.size, self.stride)


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


class NormPool(Layer):
    """ReLU, then `norm`, then `pool`, in one kernel: how a tower computes the three where they follow each other."""

    norm: LocalResponseNorm
    pool: MaxPool

    def __call__(self, x, keys=None):
        norm, pool = self.norm, self.pool
        return norm_pool(x, window=pool.size, stride=pool.stride, size=norm.size, k=norm.k, alpha=norm.alpha, beta=norm.beta)


class Dropout(Layer):
    """Units set to zero in training; all of them, times `keep`, at test (paper, section 4.2).

    The mask belongs to the image and the tower, not to the device that draws it.

    Attributes:
      keep: probability that a unit takes part.
    """

    short = "drop"

    keep: float = 0.5

    def __call__(self, x, keys=None):
        if keys is None:
            return x * self.keep

        def mask(key: Key[Array, ""]) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, lax.axis_index(TOWER)), self.keep, x.shape[1:])

        return jnp.where(jax.vmap(mask)(keys), x, jnp.zeros((), x.dtype))


class InvertedDropout(Dropout):
    """`Dropout` that divides what it keeps by `keep` in training, and does nothing at test: that of Caffe and PyTorch.

    Either way the mean of a unit is the same in training and at test, but not from one way to the other: a network's weights
    belong to its own.
    """

    def __call__(self, x, keys=None):
        return x if keys is None else super().__call__(x, keys) / self.keep
