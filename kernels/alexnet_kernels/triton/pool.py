"""Kernels of overlapping max-pooling, alone or fused with a preceding ReLU and response normalization.

In the forward kernel an element is a tile of neighboring windows: pixels that several windows share are read and normalized once.
In the backward kernel an element is a cell: the `stride` x `stride` pixels between the starts of neighboring windows. All pixels
of a cell get their gradients from the same few windows. Each cell gathers them, so no two threads write to the same address.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.max_pool import pooled_size
from alexnet_kernels.triton.blocks import block_for
from alexnet_kernels.triton.groups import (
    Channels,
    GroupedRef,
    call_kernel,
    element_coordinates,
    group_size,
    position_in_segment,
)
from alexnet_kernels.triton.norm import Norm


@dataclass(frozen=True)
class Pool:
    """Max-pooling, after ReLU and response normalization if `norm` is given.

    Attributes:
      window: side of a window, pixels.
      stride: pixels between the starts of neighboring windows.
      norm: response normalization; None for max-pooling alone.
    """

    window: int
    stride: int
    norm: Norm | None = None

    @property
    def segments(self) -> int:
        """Number of segments of the channels, across which no window of the normalization extends."""
        return self.norm.segments if self.norm else 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the number of rows and the number of columns of windows."""
        return pooled_size(height, self.window, self.stride), pooled_size(width, self.window, self.stride)

    def rectify(self, xs: Channels) -> Channels:
        """Apply ReLU if there is a normalization."""
        # Not `maximum`, which drops NaNs on a GPU.
        return [jnp.where(x < 0, 0.0, x) for x in xs] if self.norm else xs

    def comparison_keys(self, xs: Channels) -> Channels:
        """Return values with the same order as the normalized activations of rectified `xs`, but cheaper to compute."""
        if self.norm is None:
            return xs
        centers = zip(xs[self.norm.before :], self.norm.divisors(xs), strict=False)
        if self.norm.beta == 0.75:
            # The square of x * s**-0.75 needs one root instead of two; the second is computed for maxima only.
            roots = [(x, lax.rsqrt(s)) for x, s in centers]
            return [(x * root) * (x * root) * root for x, root in roots]
        return [x * self.norm.power(s) for x, s in centers]

    def from_comparison_key(self, key: Array) -> Array:
        """Return the normalized activation that has this comparison key."""
        if self.norm is None:
            return key
        return self.norm.scale * (lax.sqrt(key) if self.norm.beta == 0.75 else key)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Array, pool: Pool, interpret: bool) -> Array:
    """Return the maxima of `x`, `[..., height, width, channels]`, after ReLU and normalization if `pool.norm` is given."""
    return _fwd(x, pool, interpret)[0]


def _fwd(x: Array, pool: Pool, interpret: bool) -> tuple[Array, tuple[Array, Array]]:
    """Return the maxima, and the residuals: positions of the maxima in their windows (row * window + column), and `x`."""
    *leading, height, width, channels = x.shape
    rows, columns = pool.output_size(height, width)
    size = group_size(channels // pool.segments, x.dtype)
    name = "norm_pool" if pool.norm else "max_pool"
    block = block_for(name, x.dtype)
    axes = (x.size // (height * width * channels), -(-rows // block.tile[0]), -(-columns // block.tile[1]), channels // size)
    shape = (*leading, rows, columns, channels)
    y, argmax = call_kernel(
        _forward,
        [jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.int8)],
        [x],
        size=size,
        name=name,
        axes=axes,
        block=block,
        interpret=interpret,
        pool=pool,
        height=height,
        width=width,
        tile=block.tile,
    )
    return y, (argmax, x)


def _bwd(pool: Pool, interpret: bool, residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    argmax, x = residuals
    *_, height, width, channels = x.shape
    size = group_size(channels // pool.segments, x.dtype)
    name = "norm_pool_gradient" if pool.norm else "max_pool_gradient"
    block = block_for(name, x.dtype)
    cells = [-(-n // pool.stride) for n in (height, width)]
    axes = (x.size // (height * width * channels), *cells, channels // size)
    inputs = [argmax, g, x] if pool.norm else [argmax, g]  # without normalization, only the shape of x is used
    (dx,) = call_kernel(
        _backward,
        [x],
        inputs,
        size=size,
        name=name,
        axes=axes,
        block=block,
        interpret=interpret,
        pool=pool,
        height=height,
        width=width,
    )
    return (dx,)


max_pool.defvjp(_fwd, _bwd)


def _forward(x_ref, y_ref, argmax_ref, *, pool: Pool, axes, height: int, width: int, tile: tuple[int, int], block: int) -> None:
    image, tile_row, tile_column, channel_group, in_bounds = element_coordinates(block, *axes)
    groups, last = axes[3], x_ref.shape[1] - 1
    rows, columns = pool.output_size(height, width)
    has_partial_windows = (rows - 1) * pool.stride + pool.window > height or (columns - 1) * pool.stride + pool.window > width
    before, after = (pool.norm.before, pool.norm.after) if pool.norm else (0, 0)
    in_segment = position_in_segment(channel_group, groups, pool.segments)
    x = GroupedRef(x_ref, *in_segment)

    first_row, first_column = tile_row * tile[0], tile_column * tile[1]  # of the tile's windows
    top, left = first_row * pool.stride, first_column * pool.stride
    corner = ((image * height + top) * width + left) * groups + channel_group

    maxima: dict[tuple[int, int], tuple[Channels, Channels]] = {}
    tile_height, tile_width = ((n - 1) * pool.stride + pool.window for n in tile)
    for row, column in product(range(tile_height), range(tile_width)):
        inside = (top + row < height) & (left + column < width)
        xs = x.load(corner + (row * width + column) * groups, in_bounds & inside, -before, last + after)
        keys = pool.comparison_keys(pool.rectify(xs))
        if has_partial_windows:
            keys = [jnp.where(inside, key, -jnp.inf) for key in keys]
        for window in product(range(tile[0]), range(tile[1])):
            i, j = row - window[0] * pool.stride, column - window[1] * pool.stride
            if 0 <= i < pool.window and 0 <= j < pool.window:
                maxima[window] = _update_maxima(maxima.get(window), keys, i * pool.window + j)

    y, argmax = GroupedRef(y_ref, *in_segment), GroupedRef(argmax_ref, *in_segment)
    for (i, j), (keys, positions) in maxima.items():
        index = ((image * rows + first_row + i) * columns + first_column + j) * groups + channel_group
        mask = in_bounds & (first_row + i < rows) & (first_column + j < columns)
        y.store(index, mask, [pool.from_comparison_key(key) for key in keys])
        argmax.store(index, mask, positions)


def _update_maxima(maxima: tuple[Channels, Channels] | None, keys: Channels, position: int) -> tuple[Channels, Channels]:
    """Update the maxima and their positions with the keys at `position`.

    Of equal keys, the first is kept; NaN takes precedence over all numbers.
    """
    if maxima is None:
        return keys, [jnp.full(key.shape, position, jnp.int32) for key in keys]
    replaces = [(new > old) | (new != new) for old, new in zip(maxima[0], keys, strict=True)]
    return (
        [jnp.where(r, new, old) for r, old, new in zip(replaces, maxima[0], keys, strict=True)],
        [jnp.where(r, position, old) for r, old in zip(replaces, maxima[1], strict=True)],
    )


def _backward(*refs, pool: Pool, axes, height: int, width: int, block: int) -> None:
    argmax_ref, g_ref, *x_ref, dx_ref = refs
    image, cell_row, cell_column, channel_group, in_bounds = element_coordinates(block, *axes)
    groups, last = axes[3], dx_ref.shape[1] - 1
    rows, columns = pool.output_size(height, width)
    before, after = (pool.norm.before, pool.norm.after) if pool.norm else (0, 0)
    in_segment = position_in_segment(channel_group, groups, pool.segments)
    argmax, g, dx = (GroupedRef(ref, *in_segment) for ref in (argmax_ref, g_ref, dx_ref))

    # A window covers `cell_offsets` cells along each axis, so windows that overlap a cell start in it or in a cell before it.
    cell_offsets = range(-(-pool.window // pool.stride))
    windows: dict[tuple[int, int], tuple[Channels, Channels]] = {}
    for row_offset, column_offset in product(cell_offsets, cell_offsets):
        row, column = cell_row - row_offset, cell_column - column_offset
        mask = in_bounds & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        index = ((image * rows + row) * columns + column) * groups + channel_group
        windows[row_offset, column_offset] = (
            argmax.load(index, mask, -after, last + before),
            g.load(index, mask, -after, last + before),
        )

    top, left = cell_row * pool.stride, cell_column * pool.stride
    corner = ((image * height + top) * width + left) * groups + channel_group
    for row, column in product(range(pool.stride), repeat=2):
        gs: Channels = [jnp.zeros(channel_group.shape, jnp.float32)] * (last + 1 + before + after)
        for i, j in product(range(row, pool.window, pool.stride), range(column, pool.window, pool.stride)):
            argmaxes, gradients = windows[i // pool.stride, j // pool.stride]
            position = i * pool.window + j
            gs = [total + jnp.where(a == position, d, 0.0) for total, a, d in zip(gs, argmaxes, gradients, strict=True)]
        index = corner + (row * width + column) * groups
        mask = in_bounds & (top + row < height) & (left + column < width)
        if pool.norm:
            xs = GroupedRef(x_ref[0], *in_segment).load(index, mask, -before - after, last + before + after)
            gs = pool.norm.gradient(pool.rectify(xs), gs)
            gs = [jnp.where(x > 0, d, 0.0) for x, d in zip(xs[before + after :], gs, strict=False)]
        dx.store(index, mask, gs)
