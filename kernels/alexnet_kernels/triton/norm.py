"""Kernels of response normalization across channels, and its arithmetic, shared with the pooling kernels."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.triton.blocks import block_for
from alexnet_kernels.triton.groups import (
    Channels,
    GroupedRef,
    call_kernel,
    element_coordinates,
    group_size,
    position_in_segment,
)


@dataclass(frozen=True)
class Norm:
    """Response normalization on lists of neighboring channels.

        y = x / (k + alpha * sum of x**2 over a window of `size` channels) ** beta

    y is computed as scale * x / s ** beta with s = k / alpha + sum of x**2, which saves one multiplication for every s.

    Attributes:
      size: channels in a window.
      k, alpha, beta: constants of the formula.
      segments: number of equal parts of the channels; windows are clipped at their ends.
    """

    size: int
    k: float
    alpha: float
    beta: float
    segments: int = 1

    @property
    def before(self) -> int:
        """Number of channels in a window before its center."""
        return self.size // 2

    @property
    def after(self) -> int:
        """Number of channels in a window after its center."""
        return (self.size - 1) // 2

    @property
    def scale(self) -> float:
        """Factor of the normalized activations: alpha ** -beta."""
        return self.alpha**-self.beta

    def divisors(self, xs: Channels) -> Channels:
        """Return s = k / alpha + sum of x**2 for every channel whose whole window is in `xs`."""
        return self.window_sums([x * x for x in xs], self.k / self.alpha)

    def window_sums(self, xs: Channels, constant: float = 0.0) -> Channels:
        """Return `constant` plus the sum over each window of `size` channels in `xs`.

        The channels are divided into chunks of `size`. A window is the end of one chunk and the beginning of the next, so its sum
        is a suffix sum of one plus a prefix sum of the other, at three additions per window.
        """
        prefixes = list(xs)
        for i in range(1, len(xs)):
            if i % self.size:
                prefixes[i] = prefixes[i - 1] + xs[i]
        suffixes = [x + constant if i % self.size == self.size - 1 and constant else x for i, x in enumerate(xs)]
        for i in reversed(range(len(xs) - 1)):
            if (i + 1) % self.size:
                suffixes[i] = xs[i] + suffixes[i + 1]
        windows = range(len(xs) - self.size + 1)
        return [suffixes[i] + prefixes[i + self.size - 1] if i % self.size else suffixes[i] for i in windows]

    def power(self, s: Array) -> Array:
        """Compute s ** -beta."""
        if self.beta == 0.75:
            root = lax.rsqrt(s)
            return root * lax.sqrt(root)
        return jnp.exp(-self.beta * jnp.log(s))

    def powers(self, s: Array) -> tuple[Array, Array]:
        """Compute s ** -beta and s ** -(beta + 1), without a division."""
        power, root = self.power(s), lax.rsqrt(s)
        return power, power * (root * root)

    def gradient(self, xs: Channels, gs: Channels) -> Channels:
        """Compute the gradient with respect to the channels in the middle of `xs`.

            dx[i] = scale * (g[i] s[i]**-beta - 2 beta x[i] sum_{j with i in its window} g[j] x[j] s[j]**-(beta + 1))

        Args:
          xs: input channels.
          gs: output gradients of the channels whose whole window is in `xs`.

        Returns:
          Gradients of the channels for which `gs` covers every window that contains them.
        """
        direct_terms, window_terms = [], []
        for x, g, s in zip(xs[self.before :], gs, self.divisors(xs), strict=False):
            power, next_power = self.powers(s)
            direct_terms.append(g * power)
            window_terms.append(g * x * next_power)
        centers = zip(xs[self.before + self.after :], direct_terms[self.after :], self.window_sums(window_terms), strict=False)
        return [self.scale * (direct - (2 * self.beta) * x * window_sum) for x, direct, window_sum in centers]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def response_norm(x: Array, norm: Norm, interpret: bool) -> Array:
    """Normalize `x`, `[..., channels]`, across its last axis; `interpret` runs Pallas's interpreter."""
    return _call(_forward, "response_norm", norm, interpret, x)


def _bwd(norm: Norm, interpret: bool, x: Array, g: Array) -> tuple[Array]:
    return (_call(_backward, "response_norm_gradient", norm, interpret, x, g),)


response_norm.defvjp(lambda x, norm, interpret: (response_norm(x, norm, interpret), x), _bwd)


def _call(kernel, name: str, norm: Norm, interpret: bool, x: Array, *gradients: Array) -> Array:
    channels = x.shape[-1]
    size = group_size(channels // norm.segments, x.dtype)
    (y,) = call_kernel(
        kernel,
        [x],
        [x, *gradients],
        size=size,
        name=name,
        axes=(x.size // channels, channels // size),
        block=block_for(name, x.dtype),
        interpret=interpret,
        norm=norm,
    )
    return y


def _forward(x_ref, y_ref, *, norm: Norm, axes: tuple[int, int], block: int) -> None:
    pixel, channel_group, in_bounds = element_coordinates(block, *axes)
    index, in_segment = pixel * axes[1] + channel_group, position_in_segment(channel_group, axes[1], norm.segments)
    xs = GroupedRef(x_ref, *in_segment).load(index, in_bounds, -norm.before, x_ref.shape[1] - 1 + norm.after)
    ys = [norm.scale * x * norm.power(s) for x, s in zip(xs[norm.before :], norm.divisors(xs), strict=False)]
    GroupedRef(y_ref, *in_segment).store(index, in_bounds, ys)


def _backward(x_ref, g_ref, dx_ref, *, norm: Norm, axes: tuple[int, int], block: int) -> None:
    pixel, channel_group, in_bounds = element_coordinates(block, *axes)
    index, in_segment = pixel * axes[1] + channel_group, position_in_segment(channel_group, axes[1], norm.segments)
    last, reach = x_ref.shape[1] - 1, norm.before + norm.after
    xs = GroupedRef(x_ref, *in_segment).load(index, in_bounds, -reach, last + reach)
    gs = GroupedRef(g_ref, *in_segment).load(index, in_bounds, -norm.after, last + norm.before)
    GroupedRef(dx_ref, *in_segment).store(index, in_bounds, norm.gradient(xs, gs))
