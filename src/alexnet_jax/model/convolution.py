"""Convolutions and their gradients, in the form that is fastest on the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.dispatch import current_device, current_order
from alexnet_kernels.xla import winograd

ConvLowering = Literal["direct", "space_to_depth"]
"""Form of convolutions with a stride and few channels, such as conv1; the values are equal up to rounding.

"direct" is one convolution with that stride. "space_to_depth" makes a block of stride x stride pixels one pixel with all of their
channels, and the kernel smaller by the same factor: 11x11 kernels with stride 4 on [224, 224, 3] become 3x3 kernels with stride 1
on [57, 57, 48]. Tensor cores multiply blocks of 8 or more channels, most of which are padding if there are three.
"""
MAX_SPACE_TO_DEPTH_CHANNELS = 4
"""Largest number of channels of the convolutions that "space_to_depth" changes."""

_conv_lowering: ContextVar[ConvLowering] = ContextVar("conv_lowering", default="direct")


@contextmanager
def conv_lowering(lowering: ConvLowering) -> Iterator[None]:
    """Context manager that sets the lowering of convolutions with a stride and few channels; see `tower_lowering`."""
    token = _conv_lowering.set(lowering)
    try:
        yield
    finally:
        _conv_lowering.reset(token)


def current_conv_lowering() -> ConvLowering:
    """Return the lowering set by `conv_lowering`, or "direct"."""
    return _conv_lowering.get()


def _prefers_xla() -> bool:
    """Return whether "xla" comes before "reference": a training step adds "xla" to the order of its context, as the last one."""
    return next((name for name in current_order() if name in ("xla", "reference")), None) == "xla"


@dataclass(frozen=True)
class Convolution:
    """Convolution of NHWC activations and an HWIO kernel.

    Calling it computes the convolution as one or few operations of XLA, which JAX can differentiate and batch. The methods may
    use minimal filtering, see `winograd`, and cannot be differentiated. On a CPU, they compute the groups one after the other,
    because XLA's grouped convolution takes several times as long. Calls and methods use the values that `conv_lowering` and
    `default_implementation` have when this object is created, because JAX traces gradients after the context managers have ended.

    Attributes:
      stride: pixels between neighboring outputs.
      padding: numbers of zeros (before, after) the image, on both axes.
      groups: number of equal parts of the channels, each of which is convolved with a part of the kernels.
      lowering: form of convolutions with a stride and few channels.
      cpu_forms: whether the methods may use, on a CPU, minimal filtering and separate groups.
    """

    stride: int
    padding: tuple[int, int]
    groups: int = 1
    lowering: ConvLowering = field(default_factory=current_conv_lowering)
    cpu_forms: bool = field(default_factory=_prefers_xla)

    def __call__(self, x: Array, kernel: Array) -> Array:
        """Return the convolution, [batch, rows, columns, features]."""
        strides, paddings = (self.stride, self.stride), (self.padding, self.padding)
        few_channels = x.shape[-1] <= MAX_SPACE_TO_DEPTH_CHANNELS
        if self.lowering == "space_to_depth" and self.stride > 1 and few_channels and self.groups == 1:
            x, kernel = _space_to_depth(x, kernel, self.stride, self.padding)
            strides, paddings = (1, 1), ((0, 0), (0, 0))
        return lax.conv_general_dilated(
            x, kernel, strides, paddings, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=self.groups
        )

    def forward(self, x: Array, kernel: Array) -> Array:
        """Return the convolution, [batch, rows, columns, features]."""
        if self.groups > 1 and self._uses_cpu_forms:
            return self._per_group(Convolution.forward, x, kernel)
        tile = self._tile_size(x, kernel, self.padding)
        return self(x, kernel) if tile is None else winograd.conv(x, kernel, self.padding, tile)

    def x_gradient(self, shape: tuple[int, ...], kernel: Array, g: Array) -> Array:
        """Return the gradient with respect to activations of this shape, from that of the outputs."""
        if self.groups > 1 and self._uses_cpu_forms:
            return self._per_group(Convolution.x_gradient, shape, kernel, g)
        # It is the convolution with the kernel turned around, from the features to the channels.
        turned, last = jnp.flip(kernel, (0, 1)).swapaxes(2, 3), len(kernel) - 1
        padding = last - self.padding[0], last - self.padding[1]
        tile = self._tile_size(g, turned, padding)
        if tile is None:
            return jax.linear_transpose(lambda x: self(x, kernel), jax.ShapeDtypeStruct(shape, g.dtype))(g)[0]
        return winograd.conv(g, turned, padding, tile)

    def kernel_gradient(self, shape: tuple[int, ...], x: Array, g: Array) -> Array:
        """Return the gradient with respect to a kernel of this shape, from that of the outputs."""
        if self.groups > 1 and self._uses_cpu_forms:
            return self._per_group(Convolution.kernel_gradient, shape, x, g)
        kernel, size = jax.ShapeDtypeStruct(shape, x.dtype), shape[0]
        tile = self._tile_size(x, kernel, self.padding)
        if tile is None:
            return jax.linear_transpose(lambda kernel: self(x, kernel), kernel)(g)[0]
        return winograd.kernel_gradient(winograd.transform_input(x, self.padding, tile, size), g, tile, size)

    @property
    def _uses_cpu_forms(self) -> bool:
        return self.cpu_forms and current_device().platform == "cpu"

    def _per_group(self, function: Callable[..., Array], *arguments: Array | tuple[int, ...]) -> Array:
        """Call a method for every group; the last axis of all arrays and shapes is divided among the groups."""
        group = replace(self, groups=1)
        parts = [
            [(*argument[:-1], argument[-1] // self.groups)] * self.groups
            if isinstance(argument, tuple)
            else jnp.split(argument, self.groups, axis=-1)
            for argument in arguments
        ]
        return jnp.concatenate([function(group, *part) for part in zip(*parts, strict=True)], axis=-1)

    def _tile_size(self, x: Array, kernel: Array | jax.ShapeDtypeStruct, padding: tuple[int, int]) -> int | None:
        """Return the side of the tiles of minimal filtering, in outputs; None for the direct form."""
        exact = jnp.finfo(x.dtype).bits >= 32  # the sums of a tile's pixels would lose digits in bfloat16
        if not (exact and self.stride == 1 and self._uses_cpu_forms):
            return None
        return winograd.tile_size(x.shape, kernel.shape, padding)


def _space_to_depth(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> tuple[Array, Array]:
    """Return the arguments of the equal convolution with stride 1 and no padding.

    The image and the kernel are padded with zeros to multiples of `stride`, and every block of stride x stride pixels becomes the
    channels of one pixel.
    """
    size, zero = kernel.shape[0], jnp.zeros((), x.dtype)
    kernel_blocks = -(-size // stride)
    end = kernel_blocks * stride - size
    kernel = lax.pad(kernel, zero, ((0, end, 0), (0, end, 0), (0, 0, 0), (0, 0, 0)))
    kernel = kernel.reshape(kernel_blocks, stride, kernel_blocks, stride, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5)

    blocks = [(length + sum(padding) - size) // stride + kernel_blocks for length in x.shape[1:3]]
    # Pixels that no kernel reaches are cut off by a negative padding.
    ends = [count * stride - padding[0] - length for count, length in zip(blocks, x.shape[1:3], strict=True)]
    x = lax.pad(x, zero, ((0, 0, 0), *((padding[0], end, 0) for end in ends), (0, 0, 0)))
    x = x.reshape(len(x), blocks[0], stride, blocks[1], stride, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(*x.shape[:3], -1), kernel.reshape(kernel_blocks, kernel_blocks, -1, kernel.shape[-1])
