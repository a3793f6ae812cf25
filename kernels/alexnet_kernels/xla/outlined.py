"""Calls of functions that XLA compiles on their own, so that a result with several uses is computed only once."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax import Array
from jax.experimental.xla_metadata import set_xla_metadata

from alexnet_kernels.dispatch import current_device
from alexnet_kernels.unrolled_vmap import unrolled_vmap

Arrays = TypeVar("Arrays", Array, tuple[Array, Array])


def outlined(function: Callable[..., Arrays], *, unroll: bool = True) -> Callable[..., Arrays]:
    """Return `function` as a call that XLA does not inline on a CPU; other devices and the results are not affected.

    XLA fuses an operation into each of its uses, even behind `lax.optimization_barrier`, which it removes before: on a CPU, it
    computes response normalization again for every position in a pooling window, and the maxima for every use of the pooled
    activations. A loop over parts of the batch also keeps operations apart, but runs on a single thread, because XLA does not
    divide a computation that it fuses with the store of its result in a slice of another array.

    The returned function cannot be differentiated: use it inside a `jax.custom_vjp`.

    Args:
      function: function of arrays.
      unroll: whether `vmap` makes a call for each element of the mapped axis, see `unrolled_vmap`.
    """

    def inlining(*args: Array) -> Arrays:
        with set_xla_metadata(inlineable=None):  # not for the calls within: functions of jax.numpy are jitted, too
            return function(*args)

    def call(*args: Array) -> Arrays:
        with set_xla_metadata(inlineable="false"):
            return jax.jit(inlining)(*args)

    if current_device().platform != "cpu":
        return function
    return unrolled_vmap(call) if unroll else call
