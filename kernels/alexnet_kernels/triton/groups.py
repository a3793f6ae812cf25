"""Kernel access to arrays in groups of neighboring channels, each read by one load of 16 bytes.

Arrays are passed to a kernel as [groups, group size]. The elements of a program are its parallel work items, one per thread.
Inside a kernel every value is an array [block] over the elements of the program, and neighboring channels are a list of such
arrays. An element loads all the channels it needs, so windows over channels need no shuffles between threads.
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

# By name, so that a version of JAX without one of them raises ImportError, after which other implementations are used.
from jax.experimental.pallas.triton import CompilerParams, load, store

from alexnet_kernels.triton.blocks import Block

Channels = list[Array]
"""Values of neighboring channels, one array [block] for each channel."""


def group_size(channels: int, dtype: Any) -> int:
    """Return the number of channels in a group: 16 bytes, or fewer if the number of channels is not divisible."""
    size = 16 // jnp.dtype(dtype).itemsize
    while channels % size:
        size //= 2
    return size


@dataclass(frozen=True)
class GroupedRef:
    """Reference to an array [groups, group size] in a kernel.

    Attributes:
      ref: Pallas reference to the array.
      channel_group: for each element, the index of its group within its segment of a pixel, [block].
      groups_per_segment: number of groups in a segment.
    """

    ref: Any
    channel_group: Array
    groups_per_segment: int

    def load(self, index: Array, mask: Array, first: int = 0, last: int | None = None) -> Channels:
        """Load channels `first` to `last` (inclusive) of a segment, relative to the first channel of the element's group.

        Args:
          index: index of each element's group in the array, [block].
          mask: elements to load, [block]; the others get zeros.
          first: first channel; negative for channels of earlier groups.
          last: last channel; None for the last one of the group.

        Returns:
          Channels as float32, or int32 for integer types. Channels outside the segment are zero.
        """
        size: int = self.ref.shape[1]
        last = size - 1 if last is None else last
        groups_before = -(-max(-first, 0) // size)
        offsets = range(-groups_before, last // size + 1)
        channels = [channel for offset in offsets for channel in self._load_group(index, mask, offset)]
        return channels[first + groups_before * size :][: last - first + 1]

    def store(self, index: Array, mask: Array, channels: Sequence[Array]) -> None:
        """Store all channels of the group at `index`, for the elements in `mask`."""
        store(self._pointer(index), _join_channels(channels).astype(self.ref.dtype), mask=self._broadcast(mask))

    def _load_group(self, index: Array, mask: Array, offset: int) -> Channels:
        if offset < 0:
            mask &= self.channel_group >= -offset
        elif offset > 0:
            mask &= self.channel_group < self.groups_per_segment - offset
        # Without `other`, masked values are undefined.
        values = load(self._pointer(index + offset), mask=self._broadcast(mask), other=0)
        dtype = jnp.float32 if jnp.issubdtype(values.dtype, jnp.floating) else jnp.int32
        return _split_channels(values.astype(dtype))

    def _pointer(self, index: Array) -> Any:
        return self.ref.at[index[:, None], jnp.arange(self.ref.shape[1])[None, :]]

    def _broadcast(self, mask: Array) -> Array:
        return mask[:, None] & (jnp.arange(self.ref.shape[1])[None, :] >= 0)


def element_coordinates(block: int, *axes: int) -> tuple[Array, ...]:
    """Return the coordinates of the elements of this program.

    Args:
      block: elements per program.
      *axes: lengths of the axes over which the elements are distributed; the last one varies fastest.

    Returns:
      One array [block] for each axis, and a mask [block] of the elements in bounds, since the last program may exceed
      the axes.
    """
    index = pl.program_id(0) * block + jnp.arange(block)
    coordinates = []
    for axis in reversed(axes[1:]):
        # `//` and `%` would also handle negative numbers, which costs several instructions each.
        coordinates.append(lax.rem(index, axis))
        index = lax.div(index, axis)
    return index, *reversed(coordinates), index < axes[0]


def position_in_segment(channel_group: Array, groups: int, segments: int) -> tuple[Array, int]:
    """Return the index of each element's group within its segment, [block], and the number of groups in a segment.

    Args:
      channel_group: index of each element's group within its pixel, [block].
      groups: number of groups in a pixel.
      segments: number of equal segments of the channels of a pixel.
    """
    groups_per_segment = groups // segments
    return lax.rem(channel_group, groups_per_segment) if segments > 1 else channel_group, groups_per_segment


def call_kernel(
    kernel: Callable[..., None],
    out: Sequence[Array | jax.ShapeDtypeStruct],
    inputs: Sequence[Array],
    *,
    size: int,
    name: str,
    axes: tuple[int, ...],
    block: Block,
    interpret: bool,
    **settings: Any,
) -> list[Array]:
    """Run a kernel for every element along `axes`.

    Args:
      kernel: function of the input and output references; it also receives `axes`, `block` (elements per program) and `settings`.
      out: arrays or structures with the shapes and types of the outputs, [..., channels].
      inputs: input arrays, [..., channels], which the kernel reads as [groups, size], without a copy.
      size: number of channels in a group.
      name: name of the kernel in profiles and compiled code.
      axes: lengths of the axes over which the elements are distributed.
      block: size of a program.
      interpret: whether to run in Pallas's interpreter instead of compiling the kernel.
      **settings: static arguments of the kernel.

    Returns:
      Outputs of the kernel.
    """
    # Under `shard_map`, the outputs vary across the same axes of the mesh as the inputs.
    varying = jax.typeof(inputs[0]).manual_axis_type
    outputs = pl.pallas_call(
        partial(kernel, axes=axes, block=block.elements, **settings),
        out_shape=[jax.ShapeDtypeStruct((math.prod(y.shape) // size, size), y.dtype, manual_axis_type=varying) for y in out],
        grid=(pl.cdiv(math.prod(axes), block.elements),),
        interpret=interpret,
        name=name,
        # The parameters select the backend: without them, some versions of JAX use Mosaic and others Triton. One stage is enough
        # because pipelining applies to loops, which the kernels do not have.
        compiler_params=CompilerParams(num_warps=block.warps, num_stages=1),
    )(*(x.reshape(-1, size) for x in inputs))
    return [grouped.reshape(y.shape) for grouped, y in zip(outputs, out, strict=True)]


def _split_channels(groups: Array) -> Channels:
    """Split [block, size] into `size` arrays, by repeated halving: Triton can only split a last axis of length two."""
    block, size = groups.shape
    if size == 1:
        return [groups.reshape(block)]
    even, odd = jnp.unstack(groups.reshape(block, size // 2, 2), axis=-1)
    return [channel for pair in zip(_split_channels(even), _split_channels(odd), strict=True) for channel in pair]


def _join_channels(channels: Sequence[Array]) -> Array:
    """Stack arrays [block] to [block, size]; the inverse of `_split_channels`."""
    if len(channels) == 1:
        return channels[0][:, None]
    pairs = jnp.stack([_join_channels(channels[0::2]), _join_channels(channels[1::2])], axis=-1)
    return pairs.reshape(pairs.shape[0], -1)
