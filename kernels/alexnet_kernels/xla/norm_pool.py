"""ReLU, response normalization and max-pooling in XLA operations."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_kernels.xla.chunked import chunked_over_batch
from alexnet_kernels.xla.max_pool import forward as pool_forward
from alexnet_kernels.xla.max_pool import gradient as pool_gradient
from alexnet_kernels.xla.response_norm import backward as norm_backward
from alexnet_kernels.xla.response_norm import response_norm


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5, 6))
def norm_pool(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> Array:
    """Compute `alexnet_kernels.norm_pool`; only `x` and the positions of the maxima are saved for the gradient."""
    return _forward(x, window, stride, size, k, alpha, beta)[0]


def _forward(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
    def maxima_and_positions(x: Array) -> tuple[Array, Array]:
        return pool_forward(response_norm(jax.nn.relu(x), size, k, alpha, beta, (-1,)), window, stride)

    return chunked_over_batch(maxima_and_positions, x, delay_store=True)


def _fwd(x: Array, *settings) -> tuple[Array, tuple[Array, Array]]:
    maxima, argmax = _forward(x, *settings)
    return maxima, (argmax, x)


def _bwd(
    window: int, stride: int, size: int, k: float, alpha: float, beta: float, residuals: tuple[Array, Array], g: Array
) -> tuple[Array]:
    def gradient(x: Array, argmax: Array, g: Array) -> Array:
        norm_gradient = pool_gradient(x.shape[-3:-1], window, stride, g, argmax)
        (relu_gradient,) = norm_backward(size, k, alpha, beta, (-1,), jax.nn.relu(x), norm_gradient)
        return jnp.where(x > 0, relu_gradient, jnp.zeros((), x.dtype))

    argmax, x = residuals
    return (chunked_over_batch(gradient, x, argmax, g),)


norm_pool.defvjp(_fwd, _bwd)
