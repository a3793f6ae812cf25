"""A few images at a time, so that what lies between operations stays in a CPU's cache."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.dispatch import current_device
from alexnet_kernels.unrolled_vmap import unrolled_vmap

Arrays = TypeVar("Arrays", Array, tuple[Array, Array])

CHUNK_BYTES = 5 << 19
"""Bytes of activities in a part: two images behind AlexNet's first convolution, in float32."""


def chunked_over_batch(function: Callable[..., Arrays], x: Array, *others: Array, late: bool = False) -> Arrays:
    """`function(x, *others)`, where it works on each image alone; the first axis of all is the images'.

    Over all images at once XLA would write what lies between to memory: measured on two cores, the gradients of normalization
    and of `norm_pool` take three times as long.

    Args:
      function: of a few images.
      x, others: of all images.
      late: whether a part's results are stored when the next part is under way. XLA fuses what ends a part with storing it, and
        then computes maxima of windows without the vector registers, in three times the time; sums it computes as well as ever.
    """
    if x.ndim < 4 or current_device().platform != "cpu":
        return function(x, *others)
    return unrolled_vmap(partial(_in_parts, function, late))(x, *others)


def _in_parts(function: Callable[..., Arrays], late: bool, x: Array, *others: Array) -> Arrays:
    images = x.shape[0]
    most = max(1, CHUNK_BYTES // max(1, x[0].size * x.dtype.itemsize))
    at_a_time = max(n for n in range(1, min(images, most) + 1) if images % n == 0)
    if at_a_time == images:
        return function(x, *others)
    parts = tuple(each.reshape(-1, at_a_time, *each.shape[1:]) for each in (x, *others))
    results = _stored_late(function, parts) if late else lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda each: each.reshape(images, *each.shape[2:]), results)


def _stored_late(function: Callable[..., Arrays], parts: tuple[Array, ...]) -> Arrays:
    """`lax.map` of `function(*part)`, whose results are stored a step late."""
    count = len(parts[0])

    def part(number: Array | int) -> Arrays:
        return function(*(lax.dynamic_index_in_dim(each, number, keepdims=False) for each in parts))

    def step(number: Array, carry: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        results, last = carry
        return _put(last, number - 1, results), part(number)

    last = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), jax.eval_shape(part, 0))
    results = jax.tree.map(lambda each: jnp.zeros((count, *each.shape), each.dtype), last)
    results, last = lax.fori_loop(0, count, step, (results, last))
    return _put(last, count - 1, results)


def _put(part: Arrays, number: Array | int, results: Arrays) -> Arrays:
    return jax.tree.map(lambda every, one: lax.dynamic_update_index_in_dim(every, one, number, 0), results, part)
