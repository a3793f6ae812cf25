"""Segments of the channels: equal parts that an operation treats as separate arrays."""

from collections.abc import Callable

import jax
from jax import Array


def per_segment(function: Callable[[Array], Array], x: Array, segments: int) -> Array:
    """Return `function` of each segment of the channels, concatenated along the channels.

    Args:
      function: function of an array `[..., channels]`, which may change the number of channels.
      x: array `[..., segments * channels]`.
      segments: number of segments.
    """
    if segments == 1:
        return function(x)
    y = jax.vmap(function, -2, -2)(x.reshape(*x.shape[:-1], segments, -1))
    return y.reshape(*y.shape[:-2], -1)
