"""Reference implementations in plain `jax.numpy`, for any dtype and device. Tests compare the other implementations with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_kernels.max_pool import pixels_past_edge
from alexnet_kernels.response_norm import per_segment


def response_norm(
    x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...] = (-1,), segments: int = 1
) -> Array:
    """Compute `alexnet_kernels.response_norm` in the dtype of `x`: in float16, squares of activations above 255 overflow."""
    if segments > 1:
        return per_segment(partial(response_norm, size=size, k=k, alpha=alpha, beta=beta, axes=axes), x, segments)
    window = [1] * x.ndim
    padding = [(0, 0)] * x.ndim
    for axis in axes:
        window[axis] = size
        padding[axis] = (size // 2, (size - 1) // 2)
    squares = lax.reduce_window(jnp.square(x), np.zeros((), x.dtype), lax.add, window, [1] * x.ndim, padding)
    return x * (k + alpha * squares) ** -beta


def max_pool(x: Array, window: int, stride: int) -> Array:
    """Compute `alexnet_kernels.max_pool`."""
    bottom, right = (pixels_past_edge(size, window, stride) for size in x.shape[-3:-1])
    leading = x.ndim - 3
    return lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        lax.max,
        (1,) * leading + (window, window, 1),
        (1,) * leading + (stride, stride, 1),
        ((0, 0),) * leading + ((0, bottom), (0, right), (0, 0)),
    )


def norm_pool(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float, segments: int = 1) -> Array:
    """Compute `alexnet_kernels.norm_pool` as ReLU, `response_norm` and `max_pool`."""
    return max_pool(response_norm(jax.nn.relu(x), size, k, alpha, beta, segments=segments), window, stride)
