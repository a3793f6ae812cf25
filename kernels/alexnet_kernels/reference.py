"""What each operation means, in the plainest jax.numpy: the tests' yardstick, in any precision and on any device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def unsupported_reason(op: str, x: Array, device: Any, **settings: Any) -> None:
    """None: it can do everything, on every device."""
    return None


def pooled_size(size: int, window: int, stride: int) -> int:
    """Windows along an axis: the last one may overrun the edge, so that every pixel is seen (layer.py of the 2012 code)."""
    return -(-(size - window) // stride) + 1


def response_norm(x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...] = (-1,)) -> Array:
    """As `alexnet_kernels.response_norm` says, in the type of `x`."""
    window = [1] * x.ndim
    padding = [(0, 0)] * x.ndim
    for axis in axes:
        window[axis] = size
        padding[axis] = (size // 2, (size - 1) // 2)
    squares = lax.reduce_window(jnp.square(x), np.zeros((), x.dtype), lax.add, window, [1] * x.ndim, padding)
    return x * (k + alpha * squares) ** -beta


def max_pool(x: Array, window: int, stride: int) -> Array:
    """As `alexnet_kernels.max_pool` says."""
    *_, height, width, _ = x.shape
    overrun = [(pooled_size(n, window, stride) - 1) * stride + window - n for n in (height, width)]
    leading = x.ndim - 3
    return lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        lax.max,
        (1,) * leading + (window, window, 1),
        (1,) * leading + (stride, stride, 1),
        ((0, 0),) * leading + ((0, max(overrun[0], 0)), (0, max(overrun[1], 0)), (0, 0)),
    )


def norm_pool(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> Array:
    """As `alexnet_kernels.norm_pool` says, by the two above."""
    return max_pool(response_norm(jax.nn.relu(x), size, k, alpha, beta), window, stride)
