"""The layers of AlexNet as Flax modules: a field for each hyper-parameter, and nothing about devices.

A layer is applied to one tower. `features` counts kernels over all towers, as the paper does, and the mapped axis `TOWER`
tells a layer how many towers share them. Parameters are float32; a layer computes in the type of its input.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key

from alexnet_jax.model.lowering import conv_per_tower, matmul_per_tower
from alexnet_kernels import max_pool, norm_pool, response_norm

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
      stride: pixels between neighboring outputs.
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
        return conv_per_tower(convolve)(x, kernel) + bias


class Dense(Weighted):
    """Fully-connected layer; the maps of a convolution are flattened as (row, column, channel)."""

    @nn.compact
    def __call__(self, x, keys=None):
        x = x.reshape(x.shape[0], -1)
        kernel, bias = self.kernel_and_bias(x, x.shape[-1])
        return matmul_per_tower(x, kernel) + bias


class ReLU(Layer):
    """max(0, x) (paper, section 3.1)."""

    short = "relu"

    def __call__(self, x, keys=None):
        return jax.nn.relu(x)


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
