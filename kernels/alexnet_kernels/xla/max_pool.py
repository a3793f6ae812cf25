"""Max-pooling that remembers which pixel won, so that its gradient needs no select-and-scatter (slow on every device)."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.reference import pooled_size
from alexnet_kernels.xla.chunked import chunked_over_batch


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Array, window: int, stride: int) -> Array:
    """As `alexnet_kernels.max_pool` says; the gradient goes to the first of equal pixels."""
    return forward(x, window, stride)[0]


def forward(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    """The maxima, and where in its window each was found: row * window + column."""
    height, width = (pooled_size(n, window, stride) for n in x.shape[-3:-1])
    overrun = [(n - 1) * stride + window - have for n, have in zip((height, width), x.shape[-3:-1], strict=True)]
    x = _pad(x, (0, overrun[0], 0), (0, overrun[1], 0), -jnp.inf)

    def windows(place: int) -> Array:
        """The pixel at `place` of every window."""
        row, column = divmod(place, window)
        return x[..., row : row + (height - 1) * stride + 1 : stride, column : column + (width - 1) * stride + 1 : stride, :]

    places = range(window * window)
    best = reduce(jnp.maximum, map(windows, places))
    # Backwards, so that the first of equals stays; a NaN equals nothing and is left to the last place. In float32 although it
    # is a byte, because comparisons of float32 are: a CPU's lanes need not change their width.
    winner = jnp.full(best.shape, places[-1], jnp.float32)
    for place in reversed(places[:-1]):
        winner = jnp.where(windows(place) == best, jnp.float32(place), winner)
    return best, winner.astype(jnp.int8)


def backward(window: int, stride: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    """The gradient of `max_pool`'s input, from what `forward` has kept."""
    winner, x = residuals  # of x only the shape is used, so nothing of it stays in memory
    return (chunked_over_batch(partial(gradient, x.shape[-3:-1], window, stride), g, winner, late=True),)


def gradient(size: tuple[int, ...], window: int, stride: int, g: Array, winner: Array) -> Array:
    """The gradient of `forward`'s input, whose rows and columns are `size`."""
    pooled = g.shape[-3:-1]
    out = jnp.zeros((*g.shape[:-3], *size, g.shape[-1]), g.dtype)
    for place in range(window * window):
        offset = divmod(place, window)
        # A pad with `stride - 1` zeros between elements puts each gradient back where its maximum was; XLA fuses them all.
        high = [n - o - (p - 1) * stride - 1 for n, o, p in zip(size, offset, pooled, strict=True)]
        share = jnp.where(winner == place, g, jnp.zeros((), g.dtype))
        out += _pad(share, (offset[0], high[0], stride - 1), (offset[1], high[1], stride - 1), 0.0)
    return out


def _pad(x: Array, rows: tuple[int, int, int], columns: tuple[int, int, int], value: float) -> Array:
    padding = ((0, 0, 0),) * (x.ndim - 3) + (rows, columns, (0, 0, 0))
    return lax.pad(x, jnp.array(value, x.dtype), padding)


def _save(x: Array, window: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
    best, winner = forward(x, window, stride)
    return best, (winner, x)


max_pool.defvjp(_save, backward)
