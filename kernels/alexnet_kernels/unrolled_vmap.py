"""Batching rule that unrolls `vmap` into separate calls, for cases where one batched operation is slower."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap


def unrolled_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with a batching rule that calls it once for each element of the mapped axis.

    The rule applies if all arguments are mapped; otherwise `vmap` batches `function` as usual. The returned function cannot be
    differentiated: use it inside a `jax.custom_vjp`.
    """
    wrapped = custom_vmap(function)

    @wrapped.def_vmap
    def rule(axis_size: int, in_batched: Sequence[bool], *args: Array) -> tuple[Any, Any]:
        if all(in_batched):
            results = [function(*(arg[index] for arg in args)) for index in range(axis_size)]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
        else:
            stacked = jax.vmap(function, [0 if batched else None for batched in in_batched])(*args)
        return stacked, jax.tree.map(lambda _: True, stacked)

    return wrapped
