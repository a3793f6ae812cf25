"""A function that `vmap` runs once for each element of its axis, where one operation for all of them would be slower."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap


def unrolled_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays, which `vmap` runs once for each element if all arguments have that axis, and batches otherwise.

    It cannot be differentiated: it is for the inside of `jax.custom_vjp`.
    """
    called = custom_vmap(function)

    @called.def_vmap
    def rule(elements: int, mapped: Sequence[bool], *args: Array) -> tuple[Any, Any]:
        if all(mapped):
            results = [function(*(arg[element] for arg in args)) for element in range(elements)]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
        else:
            stacked = jax.vmap(function, [0 if own else None for own in mapped])(*args)
        return stacked, jax.tree.map(lambda _: True, stacked)

    return called
