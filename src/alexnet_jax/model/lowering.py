"""Lowering of convolutions and matrix products for towers that share a device, where the default batching by `vmap` is slow.

On one device the towers are an axis added by `vmap`, and the functions below define their own batching rules for it. If each
tower has a device of its own, there is no such axis, and they compute the plain operation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from alexnet_kernels.dispatch import current_device
from alexnet_kernels.unrolled_vmap import unrolled_vmap
from alexnet_kernels.xla.outlined import outlined


def conv_per_tower(operation: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Return `operation(x, kernel)` with a batching rule that calls it once per tower if each tower has its own `x`.

    By default, `vmap` turns two convolutions into a grouped one, which XLA runs 5 to 7 times slower on a CPU than two separate
    ones. If the towers read the same `x`, the default is kept: one convolution with the kernels of both towers, which is faster
    than two.

    Args:
      operation: function of `x` and `kernel` that is linear in each of them; its gradient needs only the arguments.
    """

    @jax.custom_vjp
    def call(x: Array, kernel: Array) -> Array:
        return unrolled_vmap(operation)(x, kernel)

    def backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
        x, kernel = residuals

        def x_gradient(kernel: Array, g: Array) -> Array:
            return jax.linear_transpose(lambda x: operation(x, kernel), x)(g)[0]

        def kernel_gradient(x: Array, g: Array) -> Array:
            return jax.linear_transpose(lambda kernel: operation(x, kernel), kernel)(g)[0]

        return unrolled_vmap(x_gradient)(kernel, g), unrolled_vmap(kernel_gradient)(x, g)

    call.defvjp(lambda x, kernel: (call(x, kernel), (x, kernel)), backward)
    return call


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """Compute `x + bias`, where `bias` has the last axis of `x`; on a CPU, its gradient is a matrix product.

    XLA computes a sum over all but the last axis one output at a time on a CPU, which takes ten times as long.
    """
    return x + bias


def _add_bias_bwd(bias: Array, g: Array) -> tuple[Array, Array]:
    def bias_gradient(g: Array) -> Array:
        if current_device().platform != "cpu":
            return g.sum(range(g.ndim - 1))
        rows = g.reshape(-1, g.shape[-1])
        return jnp.dot(jnp.ones(len(rows), g.dtype), rows, preferred_element_type=jnp.float32).astype(bias.dtype)

    return g, unrolled_vmap(bias_gradient)(g)


add_bias.defvjp(lambda x, bias: (x + bias, bias), _add_bias_bwd)


@jax.custom_vjp
def matmul_per_tower(x: Array, kernel: Array) -> Array:
    """Compute `x @ kernel`; under `vmap` as a batched matrix product over the towers, forward and backward.

    If the towers read the same `x`, the default batching makes the towers the middle axis of the result. For this layout, or to
    slice one tower out of a stack, XLA copies kernels of 150 MB.
    """

    # For few images, a CPU takes about two thirds of the time if the activations are the transposed operand, not the kernel.
    def product(x: Array, kernel: Array) -> Array:
        return lax.dot_general(_transposed(x), kernel, (((0,), (0,)), ((), ())))

    return _with_batched_arguments(product)(x, kernel)


def _matmul_bwd(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    # One call for both: an update of the kernel in place then follows its last use, and XLA makes no copy of it.
    def gradients(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        x_gradient = _transposed(lax.dot_general(kernel, g, (((1,), (1,)), ((), ()))))
        return x_gradient, lax.dot_general(x, g, (((0,), (0,)), ((), ())))

    return _with_batched_arguments(gradients, transform=partial(outlined, unroll=False))(x, kernel, g)


matmul_per_tower.defvjp(lambda x, kernel: (matmul_per_tower(x, kernel), (x, kernel)), _matmul_bwd)


def _transposed(x: Array) -> Array:
    """Return the transpose of a matrix, which XLA does not merge into a matrix product on a CPU."""
    return outlined(jnp.transpose)(x)


def _with_batched_arguments(function: Callable[..., Any], transform: Callable[[Any], Any] = lambda f: f) -> Callable[..., Any]:
    """Return `function` with a batching rule that broadcasts arguments without a tower axis along it, then uses `vmap`.

    Args:
      function: function of arrays.
      transform: transformation of `function`, also of its batched form.
    """
    wrapped = custom_vmap(transform(function))

    @wrapped.def_vmap
    def rule(towers: int, in_batched: Sequence[bool], *args: Array) -> tuple[Any, Any]:
        stacked = [
            arg if batched else jnp.broadcast_to(arg, (towers, *arg.shape)) for arg, batched in zip(args, in_batched, strict=True)
        ]
        results = transform(jax.vmap(function))(*stacked)
        return results, jax.tree.map(lambda _: True, results)

    return wrapped
