"""Response normalization in XLA operations.

Window sums are sums of slices of a padded array, which XLA fuses with the operations that use them.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.xla.outlined import outlined


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def response_norm(x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]) -> Array:
    """Compute `alexnet_kernels.response_norm`, with sums in float32 or wider."""
    return outlined(partial(normalize, size=size, k=k, alpha=alpha, beta=beta, axes=axes))(x)


def normalize(x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]) -> Array:
    """Compute `response_norm` as a part of other operations, which XLA can fuse with it."""
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
        padding = [(0, 0, 0)] * x.ndim
        padding[axis] = (before, size - 1 - before, 0)
        padded = lax.pad(x, jnp.zeros((), x.dtype), padding)
        slices = [lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis) for start in range(size)]
        x = sum(slices[1:], slices[0])
    return x


def _power(s: Array, beta: float) -> Array:
    """Compute s ** -beta; the paper's 0.75 takes two square roots, which are many times cheaper than `pow`."""
    if beta == 0.75:
        root = lax.rsqrt(s)
        return root * lax.sqrt(root)
    return s**-beta


def _fwd(x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]) -> tuple[Array, Array]:
    return response_norm(x, size, k, alpha, beta, axes), x


def _bwd(size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...], x: Array, g: Array) -> tuple[Array]:
    return (gradient(x, g, size, k, alpha, beta, axes),)


def gradient(
    x: Array, g: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...], *, relu: bool = False
) -> Array:
    """Compute the gradient with respect to the input of `response_norm`, or, with `relu`, of `response_norm(jax.nn.relu(x))`."""

    # dx[i] = g[i] s[i]^-b - 2 a b x[i] sum_{j: i in window of j} g[j] x[j] s[j]^-(b+1)
    def widened(x: Array, g: Array) -> tuple[Array, Array, Array]:
        x = _widen(jax.nn.relu(x) if relu else x)
        return x, _widen(g), _divisor(x, size, k, alpha, axes)

    @outlined
    def summands(x: Array, g: Array) -> Array:
        x, g, s = widened(x, g)
        return g * x * _power(s, beta) / s

    @outlined
    def x_gradient(x: Array, g: Array, summands: Array) -> Array:
        wide, g, s = widened(x, g)
        window_sum = _window_sum(summands, size, axes, before=(size - 1) // 2)
        dx = (g * _power(s, beta) - 2 * alpha * beta * wide * window_sum).astype(x.dtype)
        return jnp.where(x > 0, dx, jnp.zeros((), x.dtype)) if relu else dx

    return x_gradient(x, g, summands(x, g))


response_norm.defvjp(_fwd, _bwd)
