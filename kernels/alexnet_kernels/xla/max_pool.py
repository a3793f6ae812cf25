"""Max-pooling that saves the position of each maximum, so that its gradient avoids select-and-scatter (slow on every device)."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.reference import pooled_size
from alexnet_kernels.xla.chunked import chunked_over_batch


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Array, window: int, stride: int) -> Array:
    """Compute `alexnet_kernels.max_pool`; the gradient goes to the first of equal pixels."""
    return forward(x, window, stride)[0]


def forward(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    """Return the maximum of each window, and its position in the window as int8: row * window + column."""
    height, width = (pooled_size(n, window, stride) for n in x.shape[-3:-1])
    padding = [(n - 1) * stride + window - size for n, size in zip((height, width), x.shape[-3:-1], strict=True)]
    x = _pad(x, (0, padding[0], 0), (0, padding[1], 0), -jnp.inf)

    def pixels_at(position: int) -> Array:
        """Return the pixel at `position` of every window."""
        row, column = divmod(position, window)
        return x[..., row : row + (height - 1) * stride + 1 : stride, column : column + (width - 1) * stride + 1 : stride, :]

    positions = range(window * window)
    maxima = reduce(jnp.maximum, map(pixels_at, positions))
    # In reverse order, so that the first of equal pixels is kept. NaN compares unequal to all pixels and gets the last position.
    # Positions are float32, like the compared values, although a byte would do: on a CPU, all vectors then have the same width.
    argmax = jnp.full(maxima.shape, positions[-1], jnp.float32)
    for position in reversed(positions[:-1]):
        argmax = jnp.where(pixels_at(position) == maxima, jnp.float32(position), argmax)
    return maxima, argmax.astype(jnp.int8)


def backward(window: int, stride: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    """Compute the gradient with respect to the input of `max_pool`, from the positions of the maxima and the input."""
    argmax, x = residuals  # only the shape of x is used, so XLA does not keep x in memory
    return (chunked_over_batch(partial(gradient, x.shape[-3:-1], window, stride), g, argmax, delay_store=True),)


def gradient(size: tuple[int, ...], window: int, stride: int, g: Array, argmax: Array) -> Array:
    """Compute the gradient with respect to the input of `forward`.

    Args:
      size: height and width of the input.
      window: side of a window, pixels.
      stride: pixels between the starts of neighboring windows.
      g: gradient of the maxima.
      argmax: positions of the maxima, as returned by `forward`.
    """
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
    maxima, argmax = forward(x, window, stride)
    return maxima, (argmax, x)


max_pool.defvjp(_fwd, backward)
