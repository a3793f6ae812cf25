"""Reference implementations in plain `jax.numpy`, for any dtype and device. Tests compare the other implementations with them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def unsupported_reason(op: str, x: Array, device: Any, **settings: Any) -> None:
    """Return None: all arguments and devices are supported."""
    return None


def pooled_size(size: int, window: int, stride: int) -> int:
    """Return the number of pooling windows along an axis.

    The last window may extend past the edge, so that every pixel is covered (layer.py of the 2012 code).

    Args:
      size: length of the axis, pixels.
      window: length of a window, pixels.
      stride: pixels between the starts of neighboring windows.
    """
    return -(-(size - window) // stride) + 1


def per_segment(function: Callable[[Array], Array], x: Array, segments: int) -> Array:
    """Return `function` of each of several equal parts of the channels, concatenated along the channels.

    Args:
      function: function of an array `[..., channels]`, which may change the number of channels.
      x: array `[..., segments * channels]`.
      segments: number of parts.
    """
    if segments == 1:
        return function(x)
    y = jax.vmap(function, -2, -2)(x.reshape(*x.shape[:-1], segments, -1))
    return y.reshape(*y.shape[:-2], -1)


def response_norm(
    x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...] = (-1,), segments: int = 1
) -> Array:
    """Compute `alexnet_kernels.response_norm` in the dtype of `x`."""
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
    *_, height, width, _ = x.shape
    bottom, right = ((pooled_size(n, window, stride) - 1) * stride + window - n for n in (height, width))  # pixels past the edges
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
