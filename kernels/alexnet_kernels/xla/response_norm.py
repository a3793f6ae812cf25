"""Response normalization in XLA operations.

Window sums are computed as sums of shifted slices, which XLA fuses into one pass, both forward and backward.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.xla.chunked import chunked_over_batch


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def response_norm(x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]) -> Array:
    """Compute `alexnet_kernels.response_norm`, with sums in float32 or wider."""
    wide = _widen(x)
    return (wide * _power(_divisor(wide, size, k, alpha, axes), beta)).astype(x.dtype)


def _widen(x: Array) -> Array:
    """Cast to float32 unless `x` is wider: a sum of bfloat16 squares has only two significant digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _divisor(x: Array, size: int, k: float, alpha: float, axes: tuple[int, ...]) -> Array:
    return k + alpha * _window_sum(x * x, size, axes, before=size // 2)


def _window_sum(x: Array, size: int, axes: tuple[int, ...], before: int) -> Array:
    """Sum over the window of each element, which starts `before` elements earlier along each of `axes`."""
    for axis in axes:
        n = x.shape[axis]
        padding = [(0, 0)] * x.ndim
        padding[axis] = (before, size - 1 - before)
        padded = jnp.pad(x, padding)
        x = lax.slice_in_dim(padded, 0, n, axis=axis)
        for shift in range(1, size):
            x = x + lax.slice_in_dim(padded, shift, shift + n, axis=axis)
    return x


def _power(s: Array, beta: float) -> Array:
    """Compute s ** -beta; the paper's 0.75 takes two square roots, which are many times cheaper than `pow`."""
    if beta == 0.75:
        root = lax.rsqrt(s)
        return root * lax.sqrt(root)
    return s**-beta


def _fwd(x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]) -> tuple[Array, Array]:
    return response_norm(x, size, k, alpha, beta, axes), x


def backward(size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...], x: Array, g: Array) -> tuple[Array]:
    """Compute the gradient with respect to the input of `response_norm`, from the input `x` and the output gradient `g`."""
    return (chunked_over_batch(partial(_gradient, size, k, alpha, beta, axes), x, g),)


def _gradient(size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...], x: Array, g: Array) -> Array:
    # dx[i] = g[i] s[i]^-b - 2 a b x[i] sum_{j: i in window of j} g[j] x[j] s[j]^-(b+1)
    dtype, x, g = x.dtype, _widen(x), _widen(g)
    s = _divisor(x, size, k, alpha, axes)
    power = _power(s, beta)
    window_sum = _window_sum(g * x * power / s, size, axes, before=(size - 1) // 2)
    return (g * power - 2 * alpha * beta * x * window_sum).astype(dtype)


response_norm.defvjp(_fwd, backward)
