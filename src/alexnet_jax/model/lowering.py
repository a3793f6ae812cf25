"""How towers that share a device compute a layer, where `vmap` of its own accord would be slow.

On one device the towers are an axis that `vmap` adds. Without it, as when each tower has a device, what is here does nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from alexnet_kernels.unrolled_vmap import unrolled_vmap


def conv_per_tower(operation: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`operation(x, kernel)`, which `vmap` runs as often as there are towers if each has an `x` of its own.

    Of two convolutions `vmap` would make a grouped one, which XLA runs 5 to 7 times slower on a CPU than the two apart. Where
    the towers read the same `x`, it makes one with the kernels of both, which is faster than two.

    Args:
      operation: linear in each of its arguments (its value is not needed for its gradient).
    """

    @jax.custom_vjp
    def call(x: Array, kernel: Array) -> Array:
        return unrolled_vmap(operation)(x, kernel)

    def gradients(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
        x, kernel = saved

        def of_x(kernel: Array, g: Array) -> Array:
            return jax.linear_transpose(lambda x: operation(x, kernel), x)(g)[0]

        def of_kernel(x: Array, g: Array) -> Array:
            return jax.linear_transpose(lambda kernel: operation(x, kernel), kernel)(g)[0]

        return unrolled_vmap(of_x)(kernel, g), unrolled_vmap(of_kernel)(x, g)

    call.defvjp(lambda x, kernel: (call(x, kernel), (x, kernel)), gradients)
    return call


@jax.custom_vjp
def matmul_per_tower(x: Array, kernel: Array) -> Array:
    """`x @ kernel`; under `vmap` a product of stacks of matrices, forward and backward.

    Left to itself, `vmap` puts the towers between the rows and columns of the result where they read the same `x`, and for
    that, or to cut a tower's share out of a stack, XLA copies kernels of 150 MB.
    """
    return _stacked(jnp.dot)(x, kernel)


def _product_gradients(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    of_x = _stacked(partial(lax.dot_general, dimension_numbers=(((1,), (1,)), ((), ()))))(g, kernel)
    of_kernel = _stacked(partial(lax.dot_general, dimension_numbers=(((0,), (0,)), ((), ()))))(x, g)
    return of_x, of_kernel


matmul_per_tower.defvjp(lambda x, kernel: (matmul_per_tower(x, kernel), (x, kernel)), _product_gradients)


def _stacked(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`function`, of which `vmap` gets a stack of every argument, of equal ones if need be."""
    called = custom_vmap(function)

    @called.def_vmap
    def rule(towers: int, per_tower: Sequence[bool], *args: Array) -> tuple[Array, bool]:
        stacks = [arg if own else jnp.broadcast_to(arg, (towers, *arg.shape)) for arg, own in zip(args, per_tower, strict=True)]
        return jax.vmap(function)(*stacks), True

    return called
