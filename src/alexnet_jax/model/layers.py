"""The layers of AlexNet as Flax modules, with one field for each hyper-parameter.

A layer is applied to one tower. `features` counts kernels over all towers, as the paper does; the size of the mapped axis `TOWER`
is the number of towers. Parameters are float32; a layer computes in the dtype of its input. Layers do not depend on the placement
of the towers on devices.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.class_registry import ClassRegistry
from alexnet_jax.model.convolution import Convolution
from alexnet_jax.model.lowering import TOWER, conv_per_tower, matmul_per_tower, operation_per_tower
from alexnet_kernels import max_pool, norm_pool, response_norm

DATA = "data"
"""Name of the mesh axis over which the images of a batch are sharded."""

Activations = Float[Array, "batch ..."]
"""Activations [batch, height, width, channels] before the first dense layer, and [batch, features] after it."""


class Layer(nn.Module):
    """Base class of the layers: `layer(x)` computes the output of one tower.

    A subclass in any module can be used in networks. A network is stored with the names of its layers' classes and the values of
    their fields, so a module that defines a subclass must be imported before such a network is loaded, and its name must not be
    that of another layer.

    Attributes:
      reads: "own" if the input is the activations of this tower, "all" if it is those of all towers.
      short_name: default name of a layer without weights, appended to that of the last weighted layer: "relu" in conv1/relu.
      registry: subclasses by name.
    """

    reads = "own"
    short_name = ""
    registry: ClassVar["ClassRegistry[Layer]"] = ClassRegistry("layer class")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Layer.registry.add(cls.__name__, cls)

    def __call__(self, x: Activations) -> Activations:
        raise NotImplementedError


class WeightedLayer(Layer):
    """Base class of convolutional and fully connected layers, whose kernels are divided among the towers.

    Attributes:
      features: number of kernels or units over all towers, a multiple of the number of towers; `Network` checks it, except for
        the last layer, whose last tower has padding units if the number of classes is not a multiple.
      reads: "own" to read this tower's part of the previous layer, "all" to read that of every tower (paper, section 3.2).
      std: standard deviation of the initial weights, drawn from a Gaussian with mean zero.
      bias: initial bias.
    """

    features: int
    reads: Literal["own", "all"] = "own"  # type: ignore[reportIncompatibleVariableOverride]
    std: float = 0.01
    bias: float = 0.0

    def kernel_and_bias(self, x: Activations, *shape: int, bias_positions: int | None = None) -> tuple[Array, Array]:
        """Create the parameters of one tower.

        Args:
          x: input of the layer; the returned arrays have its dtype.
          *shape: shape of the kernel without its last axis, the features of the tower.
          bias_positions: number of positions with separate biases; None for one bias per feature.

        Returns:
          Kernel [*shape, features], and bias [features] or [bias_positions, features].
        """
        width = -(-self.features // lax.axis_size(TOWER))
        # Flax traces the initializer whenever it traces a network, to check shapes: random numbers would take most of that time.
        draw = nn.initializers.normal(self.std) if self.std and self.is_initializing() else nn.initializers.zeros
        kernel = self.param("kernel", draw, (*shape, width), jnp.float32)
        bias_shape = (width,) if bias_positions is None else (bias_positions, width)
        bias = self.param("bias", nn.initializers.constant(self.bias), bias_shape, jnp.float32)
        return kernel.astype(x.dtype), bias.astype(x.dtype)


class Conv(WeightedLayer):
    """Convolution with square kernels (paper, section 3.5).

    Attributes:
      kernel: side of a kernel, pixels.
      stride: pixels between neighboring outputs.
      padding: numbers of zeros (before, after) the image, on both axes.
    """

    groups = 1  # no field, because networks are stored without it; `GroupedConv` has one

    kernel: int = 3
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    def __call__(self, x):
        return self.convolve(x, lambda y: y)

    @nn.compact
    def convolve(self, x, pool):
        """Compute the convolution, then `pool`, then add the bias."""
        kernel, bias = self.kernel_and_bias(x, self.kernel, self.kernel, x.shape[-1] // self.groups)
        return conv_per_tower(Convolution(self.stride, self.padding, self.groups), x, kernel, bias, pool)


class Dense(WeightedLayer):
    """Fully connected layer. The maps of a convolution are flattened in the order (row, column, channel)."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        kernel, bias = self.kernel_and_bias(x, x.shape[-1])
        return matmul_per_tower(x, kernel) + bias


class ReLU(Layer):
    """Rectified linear unit, max(0, x) (paper, section 3.1)."""

    short_name = "relu"

    def __call__(self, x):
        # Not `maximum`, which XLA fuses into matrix products that drop NaNs on a CPU: diverged networks would have finite losses.
        return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


class LocalResponseNorm(Layer):
    """Response normalization across the maps of one tower, pixel by pixel (paper, section 3.3).

    Computes x_i / (k + alpha * sum_j x_j^2)^beta, where j runs over the `size` maps centered at map i.

    Attributes:
      size: maps in the window (the paper's n).
      k, alpha, beta: constants of the formula; `alpha` multiplies the sum of squares, not their mean.
    """

    short_name = "norm"

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __call__(self, x):
        return operation_per_tower(partial(response_norm, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta), x)


class SameMapNorm(Layer):
    """Response normalization over a square within each map, `rnorm` of the original code; not in the paper.

    Attributes:
      size: side of the square, pixels.
      k, alpha, beta: as in `LocalResponseNorm`.
    """

    short_name = "same_map_norm"

    size: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 5**2
    beta: float = 0.75

    def __call__(self, x):
        return response_norm(x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta, axes=(-3, -2))


class MaxPool(Layer):
    """Max-pooling, overlapping if `size` exceeds `stride` (paper, section 3.4).

    The gradient goes to the first of equal pixels; in the original code, it goes to all of them.

    Attributes:
      size: side of a window, pixels (the paper's z).
      stride: pixels between the starts of neighboring windows (the paper's s).
    """

    short_name = "pool"

    size: int = 3
    stride: int = 2

    def __call__(self, x):
        return operation_per_tower(lambda x, segments=1: max_pool(x, self.size, self.stride), x)


class ConvPool(Layer):
    """Convolution and max-pooling as one operation; `tower.rewrite_pooling` creates it from the two layers.

    The bias is added to the maxima, of which there are a quarter as many as pixels if the stride is 2; the sums are the same. The
    parameters are those of `conv`, under the name of this layer.
    """

    conv: Conv
    pool: MaxPool
    reads: Literal["own", "all"] = "own"  # type: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        """Make the parameters of the convolution those of this layer."""
        nn.share_scope(self, self.conv)

    def __call__(self, x):
        return self.conv.convolve(x, partial(max_pool, window=self.pool.size, stride=self.pool.stride))


class NormPool(Layer):
    """ReLU, response normalization and max-pooling as one operation; `tower.rewrite_pooling` creates it from the three layers."""

    norm: LocalResponseNorm
    pool: MaxPool

    def __call__(self, x):
        norm, pool = self.norm, self.pool
        settings = {"size": norm.size, "k": norm.k, "alpha": norm.alpha, "beta": norm.beta}
        return operation_per_tower(partial(norm_pool, window=pool.size, stride=pool.stride, **settings), x)


class Dropout(Layer):
    """Dropout: random units are set to zero in training, and all units are multiplied by `keep` at test (paper, section 4.2).

    In training, `apply` is called with `rngs={"dropout": key}`, at test without. The mask of an image depends on this key, the
    layer's name, the tower and the index of the image in the global batch, but not on the devices.

    Attributes:
      keep: probability that a unit is kept.
    """

    short_name = "drop"

    keep: float = 0.5

    def __call__(self, x):
        if not self.has_rng("dropout"):
            return x * self.keep
        key = self.make_rng("dropout")
        towers, tower = lax.axis_size(TOWER), lax.axis_index(TOWER)

        def image_mask(index: Array) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, towers * index + tower), self.keep, x.shape[1:])

        return jnp.where(jax.vmap(image_mask)(_global_indices(len(x))), x, jnp.zeros((), x.dtype))


def _global_indices(batch: int) -> Array:
    """Return the indices in the global batch of the images on this device: those of its shard inside `shard_map` over `DATA`."""
    sharded = DATA in jax.sharding.get_abstract_mesh().manual_axes
    return jnp.arange(batch) + (lax.axis_index(DATA) * batch if sharded else 0)
