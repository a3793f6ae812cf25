"""Overlapping max-pooling, alone or behind ReLU and response normalization, forward and backward in one kernel each.

Forward, an element of a program is a tile of neighboring windows: pixels that windows share are read and normalized once.
Backward, it is a cell: the `stride` x `stride` pixels between the start of one window and of the next, all of whose
gradients come from the same few windows. They are gathered, so no two threads write to one place.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.reference import pooled_size
from alexnet_kernels.triton.blocks import block_for
from alexnet_kernels.triton.groups import Channels, View, call, elements, group_size, grouped
from alexnet_kernels.triton.norm import Norm


@dataclass(frozen=True)
class Pool:
    """Max-pooling of [height, width] pixels; with a `norm`, of what ReLU and that make of them."""

    window: int
    stride: int
    norm: Norm | None = None

    def pooled(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of windows."""
        return pooled_size(height, self.window, self.stride), pooled_size(width, self.window, self.stride)

    def seen(self, xs: Channels) -> Channels:
        """Activities as pooling sees them before normalization. Not `maximum`, which on a GPU loses a NaN."""
        return [jnp.where(x < 0, 0.0, x) for x in xs] if self.norm else xs

    def scores(self, xs: Channels) -> Channels:
        """What is compared: grows with the activity, and is cheaper than it."""
        if self.norm is None:
            return xs
        own = zip(xs[self.norm.before :], self.norm.divisors(xs), strict=False)
        if self.norm.beta == 0.75:
            # The square of x * s**-0.75 takes one reciprocal root instead of two; the other is for winners only.
            roots = [(x, lax.rsqrt(s)) for x, s in own]
            return [(x * root) * (x * root) * root for x, root in roots]
        return [x * self.norm.power(s) for x, s in own]

    def value(self, score: Array) -> Array:
        """The activity behind a score."""
        if self.norm is None:
            return score
        return self.norm.scale * (lax.sqrt(score) if self.norm.beta == 0.75 else score)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def pooled(x: Array, pool: Pool, interpret: bool) -> Array:
    """The maxima, [..., pooled height, pooled width, channels], in the type of `x`."""
    return _save(x, pool, interpret)[0]


def _save(x: Array, pool: Pool, interpret: bool) -> tuple[Array, tuple[Array, Array]]:
    """The maxima, and where in its window each was found: row * window + column."""
    *leading, height, width, channels = x.shape
    rows, columns = pool.pooled(height, width)
    size = group_size(channels, x.dtype)
    name = "norm_pool" if pool.norm else "max_pool"
    block = block_for(name, x.dtype)
    axes = (x.size // (height * width * channels), -(-rows // block.tile[0]), -(-columns // block.tile[1]), channels // size)
    shape = (axes[0] * rows * columns * axes[3], size)
    y, winner = call(
        _forward,
        [jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.int8)],
        [grouped(x, size)],
        name=name,
        axes=axes,
        block=block,
        interpret=interpret,
        pool=pool,
        height=height,
        width=width,
        tile=block.tile,
    )
    y, winner = (out.reshape(*leading, rows, columns, channels) for out in (y, winner))
    return y, (winner, x)


def _backward_pass(pool: Pool, interpret: bool, residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    winner, x = residuals
    *_, height, width, channels = x.shape
    size = group_size(channels, x.dtype)
    name = "norm_pool_gradient" if pool.norm else "max_pool_gradient"
    block = block_for(name, x.dtype)
    cells = [-(-n // pool.stride) for n in (height, width)]
    axes = (x.size // (height * width * channels), *cells, channels // size)
    inputs = [winner, g, x] if pool.norm else [winner, g]  # without a norm, of x only the shape matters
    (dx,) = call(
        _backward,
        [jax.ShapeDtypeStruct((x.size // size, size), x.dtype)],
        [grouped(each, size) for each in inputs],
        name=name,
        axes=axes,
        block=block,
        interpret=interpret,
        pool=pool,
        height=height,
        width=width,
    )
    return (dx.reshape(x.shape),)


pooled.defvjp(_save, _backward_pass)


def _forward(x_ref, y_ref, winner_ref, *, pool: Pool, axes, height: int, width: int, tile: tuple[int, int], block: int) -> None:
    image, tile_row, tile_column, own, exists = elements(block, *axes)
    groups, last = axes[3], x_ref.shape[1] - 1
    rows, columns = pool.pooled(height, width)
    ragged = (rows - 1) * pool.stride + pool.window > height or (columns - 1) * pool.stride + pool.window > width
    before, after = (pool.norm.before, pool.norm.after) if pool.norm else (0, 0)
    x = View(x_ref, own, groups)

    window_row, window_column = tile_row * tile[0], tile_column * tile[1]  # the tile's first
    top, left = window_row * pool.stride, window_column * pool.stride
    corner = ((image * height + top) * width + left) * groups + own

    best: dict[tuple[int, int], tuple[Channels, Channels]] = {}
    down, across = ((n - 1) * pool.stride + pool.window for n in tile)
    for row, column in product(range(down), range(across)):
        inside = (top + row < height) & (left + column < width)
        xs = x.load(corner + (row * width + column) * groups, exists & inside, -before, last + after)
        scores = pool.scores(pool.seen(xs))
        if ragged:
            scores = [jnp.where(inside, score, -jnp.inf) for score in scores]
        for window in product(range(tile[0]), range(tile[1])):
            i, j = row - window[0] * pool.stride, column - window[1] * pool.stride
            if 0 <= i < pool.window and 0 <= j < pool.window:
                best[window] = _better(best.get(window), scores, i * pool.window + j)

    y, winner = View(y_ref, own, groups), View(winner_ref, own, groups)
    for (i, j), (scores, places) in best.items():
        at = ((image * rows + window_row + i) * columns + window_column + j) * groups + own
        mask = exists & (window_row + i < rows) & (window_column + j < columns)
        y.store(at, mask, [pool.value(score) for score in scores])
        winner.store(at, mask, places)


def _better(best: tuple[Channels, Channels] | None, scores: Channels, place: int) -> tuple[Channels, Channels]:
    """The larger of the best so far and the scores at `place`; the first of equals, and a NaN over everything."""
    if best is None:
        return scores, [jnp.full(score.shape, place, jnp.int32) for score in scores]
    better = [(new > old) | (new != new) for old, new in zip(best[0], scores, strict=True)]
    return (
        [jnp.where(b, new, old) for b, old, new in zip(better, best[0], scores, strict=True)],
        [jnp.where(b, place, old) for b, old in zip(better, best[1], strict=True)],
    )


def _backward(*refs, pool: Pool, axes, height: int, width: int, block: int) -> None:
    winner_ref, g_ref, *x_ref, dx_ref = refs
    image, cell_row, cell_column, own, exists = elements(block, *axes)
    groups, last = axes[3], dx_ref.shape[1] - 1
    rows, columns = pool.pooled(height, width)
    before, after = (pool.norm.before, pool.norm.after) if pool.norm else (0, 0)
    winner, g, dx = View(winner_ref, own, groups), View(g_ref, own, groups), View(dx_ref, own, groups)

    # Windows that reach into the cell start in it, or up to `reach` cells before it.
    reach = range(-(-pool.window // pool.stride))
    windows: dict[tuple[int, int], tuple[Channels, Channels]] = {}
    for up, back in product(reach, reach):
        row, column = cell_row - up, cell_column - back
        mask = exists & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        at = ((image * rows + row) * columns + column) * groups + own
        windows[up, back] = winner.load(at, mask, -after, last + before), g.load(at, mask, -after, last + before)

    top, left = cell_row * pool.stride, cell_column * pool.stride
    corner = ((image * height + top) * width + left) * groups + own
    for row, column in product(range(pool.stride), repeat=2):
        gs: Channels = [jnp.zeros(own.shape, jnp.float32)] * (last + 1 + before + after)
        for i, j in product(range(row, pool.window, pool.stride), range(column, pool.window, pool.stride)):
            winners, gradients = windows[i // pool.stride, j // pool.stride]
            here = i * pool.window + j
            gs = [total + jnp.where(w == here, g, 0.0) for total, w, g in zip(gs, winners, gradients, strict=True)]
        at = corner + (row * width + column) * groups
        mask = exists & (top + row < height) & (left + column < width)
        if pool.norm:
            xs = View(x_ref[0], own, groups).load(at, mask, -before - after, last + before + after)
            seen = pool.seen(xs)
            gs = [jnp.where(x > 0, d, 0.0) for x, d in zip(xs[before + after :], pool.norm.gradient(seen, gs), strict=False)]
        dx.store(at, mask, gs)
