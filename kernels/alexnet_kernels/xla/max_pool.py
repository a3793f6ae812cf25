"""Max-pooling that saves the position of each maximum, so that its gradient avoids select-and-scatter (slow on every device)."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.max_pool import pixels_past_edge
from alexnet_kernels.xla.outlined import outlined


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Array, window: int, stride: int) -> Array:
    """Compute `alexnet_kernels.max_pool`; the gradient goes to the first of equal pixels."""
    return forward(x, window, stride)[0]


def forward(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    """Return the maximum of each window, and its position in the window: row * window + column, as int8 if that is enough.

    The maximum of each row of a window is found first, then that of its rows: 2 * window comparisons instead of window ** 2.
    """
    past_edge = [pixels_past_edge(size, window, stride) for size in x.shape[-3:-1]]
    if max(past_edge) > 0:
        # Pad both axes first: XLA would fuse the padding of each axis into every slice, which takes longer.
        x = outlined(partial(_pad, rows=(0, past_edge[0], 0), columns=(0, past_edge[1], 0), value=-jnp.inf))(x)
    # Positions are float32, like the compared values, although a byte would do: on a CPU, all vectors then have the same width.
    columns = jnp.zeros(x.shape, jnp.float32)
    maxima, columns = _maxima(x, columns, 1, x.ndim - 2, window, stride)
    maxima, argmax = _maxima(maxima, columns, window, x.ndim - 3, window, stride)
    return maxima, argmax.astype(jnp.int8 if window**2 <= 128 else jnp.int32)


def _maxima(x: Array, positions: Array, step: int, axis: int, window: int, stride: int) -> tuple[Array, Array]:
    """Return the maxima of windows along an axis, and the position of the first of equal ones: its own plus step * offset."""
    count = (x.shape[axis] - window) // stride + 1

    def pixels_at(offset: int, array: Array) -> Array:
        """Return the pixel at `offset` of every window."""
        return lax.slice_in_dim(array, offset, offset + (count - 1) * stride + 1, stride, axis)

    pixels = [pixels_at(offset, x) for offset in range(window)]
    candidates = [pixels_at(offset, positions) + step * offset for offset in range(window)]
    maxima, first = reduce(jnp.maximum, pixels), candidates.pop()
    # In reverse order, so that the first of equal pixels is kept. NaN compares unequal to all pixels and gets the last position.
    for pixel, position in reversed(list(zip(pixels, candidates, strict=False))):
        first = jnp.where(pixel == maxima, position, first)
    return maxima, first


def backward(window: int, stride: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    """Compute the gradient with respect to the input of `max_pool`, from the positions of the maxima and the input."""
    argmax, x = residuals  # only the shape of x is used, so XLA does not keep x in memory
    return (outlined(partial(gradient, x.shape[-3:-1], window, stride))(g, argmax),)


def gradient(size: tuple[int, ...], window: int, stride: int, g: Array, argmax: Array) -> Array:
    """Compute the gradient with respect to the input of `forward`, of height and width `size`, from that of the maxima."""
    pooled = g.shape[-3:-1]
    out = jnp.zeros((*g.shape[:-3], *size, g.shape[-1]), g.dtype)
    for position in range(window * window):
        offset = divmod(position, window)
        # Padding with `stride - 1` zeros between elements moves each gradient to the pixel of its maximum. XLA fuses all of them.
        high = [n - o - (p - 1) * stride - 1 for n, o, p in zip(size, offset, pooled, strict=True)]
        at_position = jnp.where(argmax == position, g, jnp.zeros((), g.dtype))
        out += _pad(at_position, (offset[0], high[0], stride - 1), (offset[1], high[1], stride - 1), 0.0)
    return out


def _pad(x: Array, rows: tuple[int, int, int], columns: tuple[int, int, int], value: float) -> Array:
    padding = ((0, 0, 0),) * (x.ndim - 3) + (rows, columns, (0, 0, 0))
    return lax.pad(x, jnp.array(value, x.dtype), padding)


def _fwd(x: Array, window: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
    maxima, argmax = outlined(partial(forward, window=window, stride=stride))(x)
    return maxima, (argmax, x)


max_pool.defvjp(_fwd, backward)
