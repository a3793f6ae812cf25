"""A few images at a time, so that what lies between the operations of a backward pass stays in a CPU's cache."""

from collections.abc import Callable

import jax
from jax import Array, lax

from alexnet_kernels.choice import current_device

PART = 5 << 19
"""Bytes of activities in a part: two images behind AlexNet's first convolution, in float32."""


def in_cache(function: Callable[..., Array], x: Array, *others: Array) -> Array:
    """`function(x, *others)`, where it works on each image alone; the first axis of all is the images'.

    Over all images at once XLA would write what lies between to memory: measured on two cores, the gradients of normalization
    and of `norm_pool` take three times as long.
    """
    if x.ndim < 4 or current_device().platform != "cpu":
        return function(x, *others)
    images = x.shape[0]
    most = max(1, PART // max(1, x[0].size * x.dtype.itemsize))
    at_a_time = max(n for n in range(1, min(images, most) + 1) if images % n == 0)
    if at_a_time == images:
        return function(x, *others)
    parts = jax.tree.map(lambda each: each.reshape(-1, at_a_time, *each.shape[1:]), (x, *others))
    results = lax.map(lambda part: function(*part), parts)
    return results.reshape(-1, *results.shape[2:])
