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
    """As `alexnet_kernels.norm_pool` says; only `x` and the winners are kept for the gradient."""
    return _forward(x, window, stride, size, k, alpha, beta)[0]


def _forward(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
    def pooled(x: Array) -> tuple[Array, Array]:
        return pool_forward(response_norm(jax.nn.relu(x), size, k, alpha, beta, (-1,)), window, stride)

    return chunked_over_batch(pooled, x, late=True)


def _save(x: Array, *settings) -> tuple[Array, tuple[Array, Array]]:
    best, winner = _forward(x, *settings)
    return best, (winner, x)


def _backward(
    window: int, stride: int, size: int, k: float, alpha: float, beta: float, residuals: tuple[Array, Array], g: Array
) -> tuple[Array]:
    def gradient(x: Array, winner: Array, g: Array) -> Array:
        normed = pool_gradient(x.shape[-3:-1], window, stride, g, winner)
        (rectified,) = norm_backward(size, k, alpha, beta, (-1,), jax.nn.relu(x), normed)
        return jnp.where(x > 0, rectified, jnp.zeros((), x.dtype))

    winner, x = residuals
    return (chunked_over_batch(gradient, x, winner, g),)


norm_pool.defvjp(_save, _backward)
