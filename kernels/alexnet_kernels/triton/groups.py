"""How a kernel sees an array: flat, in groups of neighboring channels that one load of 16 bytes brings.

Every value inside a kernel is an array over the elements of its block, one or more for each thread, and a run of channels
is a list of such arrays: channels never meet across threads, so windows over them need no shuffles.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from alexnet_kernels.triton.blocks import Block

Channels = list[Array]
"""Values of neighboring channels, one array [block] each."""


def group_size(channels: int, *dtypes: Any) -> int:
    """Channels in a group: 16 bytes of the narrowest type, or fewer if that does not divide the channels."""
    size = 16 // min(jnp.dtype(dtype).itemsize for dtype in dtypes)
    while channels % size:
        size //= 2
    return size


def grouped(x: Array, size: int) -> Array:
    """[..., channels] as [groups, size], without a copy."""
    return x.reshape(-1, size)


@dataclass(frozen=True)
class View:
    """A grouped array in a kernel.

    Attributes:
      ref: the array, [groups, size].
      own: each element's group among those of its pixel, [block].
      groups: how many a pixel has.
    """

    ref: Any
    own: Array
    groups: int

    def load(self, at: Array, mask: Array, first: int = 0, last: int | None = None) -> Channels:
        """Channels `first` to `last` of the group at `at`, counted from its own first; negative ones lie before it.

        Zero where `mask` is false or there is no such channel. Float types come as float32, integers as int32.
        """
        size: int = self.ref.shape[1]
        last = size - 1 if last is None else last
        before = -(-max(-first, 0) // size)
        run = [channel for step in range(-before, last // size + 1) for channel in self._load_group(at, mask, step)]
        return run[first + before * size :][: last - first + 1]

    def store(self, at: Array, mask: Array, channels: Sequence[Array]) -> None:
        """Writes a whole group."""
        triton.store(self._pointer(at), _join(channels).astype(self.ref.dtype), mask=self._wide(mask))

    def _load_group(self, at: Array, mask: Array, step: int) -> Channels:
        if step < 0:
            mask &= self.own >= -step
        elif step > 0:
            mask &= self.own < self.groups - step
        # Without `other`, what is masked out would be anything.
        values = triton.load(self._pointer(at + step), mask=self._wide(mask), other=0)
        wide = jnp.float32 if jnp.issubdtype(values.dtype, jnp.floating) else jnp.int32
        return _split(values.astype(wide))

    def _pointer(self, at: Array) -> Any:
        return self.ref.at[at[:, None], jnp.arange(self.ref.shape[1])[None, :]]

    def _wide(self, mask: Array) -> Array:
        return mask[:, None] & (jnp.arange(self.ref.shape[1])[None, :] >= 0)


def elements(block: int, *axes: int) -> tuple[Array, ...]:
    """Coordinates of this program's elements along `axes`, the last varying fastest, and whether each exists, [block]."""
    index = pl.program_id(0) * block + jnp.arange(block)
    coordinates = []
    for axis in reversed(axes[1:]):
        # Not // and %: those allow for negative numbers, at several instructions each.
        coordinates.append(lax.rem(index, axis))
        index = lax.div(index, axis)
    return index, *reversed(coordinates), index < axes[0]


def call(
    kernel: Callable[..., None],
    out: Sequence[jax.ShapeDtypeStruct],
    inputs: Sequence[Array],
    *,
    name: str,
    axes: tuple[int, ...],
    block: Block,
    interpret: bool,
    **settings: Any,
) -> list[Array]:
    """Runs `kernel` over elements along `axes`, in programs of the size of `block`."""
    return pl.pallas_call(
        partial(kernel, axes=axes, block=block.elements, **settings),
        out_shape=list(out),
        grid=(pl.cdiv(math.prod(axes), block.elements),),
        interpret=interpret,
        name=name,
        # Always given: left out, it would mean Mosaic in some versions of JAX and Triton in others. Nothing is pipelined,
        # because no kernel loops.
        compiler_params=triton.CompilerParams(num_warps=block.warps, num_stages=1),
    )(*inputs)


def _split(groups: Array) -> Channels:
    """[block, size] to a list of `size` arrays, by halves: Triton can only take apart a last axis of two."""
    block, size = groups.shape
    if size == 1:
        return [groups.reshape(block)]
    even, odd = jnp.unstack(groups.reshape(block, size // 2, 2), axis=-1)
    return [channel for pair in zip(_split(even), _split(odd), strict=True) for channel in pair]


def _join(channels: Sequence[Array]) -> Array:
    """The inverse of `_split`."""
    if len(channels) == 1:
        return channels[0][:, None]
    pairs = jnp.stack([_join(channels[0::2]), _join(channels[1::2])], axis=-1)
    return pairs.reshape(pairs.shape[0], -1)
