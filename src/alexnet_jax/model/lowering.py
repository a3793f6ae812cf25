"""Lowering of convolutions, matrix products, and normalization and pooling, above all for towers that share a device.

On one device the towers are an axis added by `vmap`, and the functions below define batching rules for it where the default one
is slow. If each tower has a device of its own, there is no such axis, and they compute the plain operation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from alexnet_jax.model.convolution import Convolution
from alexnet_kernels.dispatch import current_device
from alexnet_kernels.unrolled_vmap import unrolled_vmap
from alexnet_kernels.xla.outlined import outlined

TOWER = "tower"
"""Name of the axis of the towers: a mesh axis if each tower has devices of its own, an axis of `vmap` otherwise."""

Lowering = Literal["separate", "grouped"]
"""Form of the layers before the first dense one, for towers that share a device; the values are equal up to rounding.

"separate" makes one convolution per tower: on a CPU, a grouped convolution takes several times as long as two separate ones
(`experiments/benchmarks/cpu_settings.py`).
"grouped" makes one grouped convolution of all towers, which lie side by side along the channels, [batch, height, width,
towers * channels]. The towers are not stacked and sliced, for which a GPU would copy all activations.
"""

_lowering: ContextVar[Lowering | None] = ContextVar("lowering", default=None)


@contextmanager
def tower_lowering(lowering: Lowering) -> Iterator[None]:
    """Context manager that sets the lowering of networks (`placement.forward`) and training steps created inside it.

    They keep it when they are traced later. Layers called outside a network use the lowering of the context they are called in.

    Examples:
      >>> with tower_lowering("grouped"):
      ...     print(current_lowering())
      grouped
    """
    token = _lowering.set(lowering)
    try:
        yield
    finally:
        _lowering.reset(token)


def current_lowering() -> Lowering | None:
    """Return the lowering set by `tower_lowering`, or None."""
    return _lowering.get()


def conv_per_tower(conv: Convolution, x: Array, kernel: Array, bias: Array, pool: Callable[[Array], Array]) -> Array:
    """Compute `pool(conv(x, kernel)) + bias`, with a batching rule for the current lowering.

    If the towers read the same `x`, both lowerings make one convolution with the kernels of all towers, which is faster than one
    per tower.

    Args:
      conv: convolution.
      x: activations of a tower, [batch, height, width, channels].
      kernel: kernel of the convolution, [rows, columns, channels, features].
      bias: bias, [features].
      pool: function of activations `[..., channels]` that computes each channel separately.
    """
    if _lowering.get() != "grouped":
        return add_bias(pool(_separate_conv(conv, x, kernel)), bias)

    @custom_vmap
    def call(x: Array, kernel: Array, bias: Array) -> Array:
        return pool(conv(x, kernel)) + bias

    @call.def_vmap
    def rule(towers: int, in_batched: Sequence[bool], x: Array, kernel: Array, bias: Array) -> tuple[Array, bool]:
        # Initial parameters that are constants have no tower axis.
        kernel, bias = _broadcast(towers, in_batched[1:], kernel, bias)
        # The default batching makes a grouped convolution. The bias is added before the channels are divided among the towers,
        # because XLA lets cuDNN add it only if nothing is in between.
        y = jax.vmap(conv, (0 if in_batched[0] else None, 0), out_axes=-2)(x, kernel)
        return _to_towers(pool(y.reshape(*y.shape[:-2], -1)) + bias.reshape(-1), towers), True

    return call(x, kernel, bias)


def operation_per_tower(operation: Callable[..., Array], x: Array) -> Array:
    """Compute `operation(x)`, in the "grouped" lowering with a batching rule that calls it once for the channels of all towers.

    Args:
      operation: function `(x, segments=1)` of activations `[..., channels]`, which computes equal segments of the channels
        separately and keeps their order, such as `alexnet_kernels.norm_pool`.
      x: activations of a tower, [batch, height, width, channels].
    """
    if _lowering.get() != "grouped":
        return operation(x)

    @custom_vmap
    def call(x: Array, tower: Array) -> Array:
        return operation(x)

    @call.def_vmap
    def rule(towers: int, in_batched: Sequence[bool], x: Array, tower: Array) -> tuple[Array, bool]:
        if not in_batched[0]:
            return operation(x), False
        side_by_side = jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)
        return _to_towers(operation(side_by_side, segments=towers), towers), True

    # The index of the tower makes the rule apply even if all towers have the same `x`: without its rule, custom_vmap cannot be
    # differentiated.
    return call(x, lax.axis_index(TOWER))


def _to_towers(x: Array, towers: int) -> Array:
    """Divide the channels among a first axis of towers: [..., towers * channels] to [towers, ..., channels]."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], towers, -1), -2, 0)


def _separate_conv(conv: Convolution, x: Array, kernel: Array) -> Array:
    """Compute `conv(x, kernel)` with a batching rule that calls it once per tower if each tower has its own `x`."""

    @jax.custom_vjp
    def call(x: Array, kernel: Array) -> Array:
        return unrolled_vmap(conv.forward)(x, kernel)

    def backward(arguments: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
        x, kernel = arguments
        x_gradient = unrolled_vmap(partial(conv.x_gradient, x.shape))(kernel, g)
        return x_gradient, unrolled_vmap(partial(conv.kernel_gradient, kernel.shape))(x, g)

    call.defvjp(lambda x, kernel: (call(x, kernel), (x, kernel)), backward)
    return call(x, kernel)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """Compute `x + bias`, where `bias` has the last axis of `x`; on a CPU, its gradient is a matrix product.

    XLA computes a sum over all but the last axis one output at a time on a CPU, which takes many times as long.
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

    # For few images, a CPU takes less time if the activations are the transposed operand, not the kernel.
    def product(x: Array, kernel: Array) -> Array:
        return lax.dot_general(_transposed(x), kernel, (((0,), (0,)), ((), ())))

    return _with_all_batched(product, jax.vmap(product))(x, kernel)


def _matmul_bwd(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    # One call for both: an update of the kernel in place then follows its last use, and XLA makes no copy of it.
    def gradients(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        x_gradient = _transposed(lax.dot_general(kernel, g, (((1,), (1,)), ((), ()))))
        return x_gradient, lax.dot_general(x, g, (((0,), (0,)), ((), ())))

    outline = partial(outlined, unroll=False)
    return _with_all_batched(outline(gradients), outline(jax.vmap(gradients)))(x, kernel, g)


matmul_per_tower.defvjp(lambda x, kernel: (matmul_per_tower(x, kernel), (x, kernel)), _matmul_bwd)


def _transposed(x: Array) -> Array:
    """Return the transpose of a matrix, which XLA does not merge into a matrix product on a CPU."""
    return outlined(jnp.transpose)(x)


def _with_all_batched(function: Callable[..., Any], batched: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with a batching rule that calls `batched` with a first axis of towers for all arguments."""
    wrapped = custom_vmap(function)

    @wrapped.def_vmap
    def rule(towers: int, in_batched: Sequence[bool], *args: Array) -> tuple[Any, Any]:
        results = batched(*_broadcast(towers, in_batched, *args))
        return results, jax.tree.map(lambda _: True, results)

    return wrapped


def _broadcast(towers: int, in_batched: Sequence[bool], *args: Array) -> list[Array]:
    """Return the arguments of a batching rule, all with a first axis of towers."""
    pairs = zip(args, in_batched, strict=True)
    return [arg if batched else jnp.broadcast_to(arg, (towers, *arg.shape)) for arg, batched in pairs]
