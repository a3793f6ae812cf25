"""Response normalization across channels: its arithmetic on runs of channels, and the kernels that do nothing else."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_kernels.triton.blocks import block_for
from alexnet_kernels.triton.groups import Channels, View, call, elements, group_size, grouped


@dataclass(frozen=True)
class Norm:
    """y = x / (k + alpha * sum of x**2 over a window of `size` channels) ** beta, on runs of neighboring channels.

    Kernels compute it as y = scale * x / s ** beta with s = k / alpha + sum of x**2, which spares a product for every s.
    """

    size: int
    k: float
    alpha: float
    beta: float

    @property
    def before(self) -> int:
        """Channels of a window that lie before its own."""
        return self.size // 2

    @property
    def after(self) -> int:
        """Channels of a window that lie after its own."""
        return (self.size - 1) // 2

    @property
    def scale(self) -> float:
        """alpha ** -beta."""
        return self.alpha**-self.beta

    def divisors(self, xs: Channels) -> Channels:
        """s, for every channel whose window is within the run."""
        return self.window_sums([x * x for x in xs], self.k / self.alpha)

    def window_sums(self, xs: Channels, extra: float = 0.0) -> Channels:
        """`extra` and the sum of each window within the run.

        The run is cut into pieces as long as a window. A window that starts inside a piece is the end of that piece and the
        beginning of the next, so that sums from both ends of each piece serve all windows: three additions a window.
        """
        starts = list(xs)
        for i in range(1, len(xs)):
            if i % self.size:
                starts[i] = starts[i - 1] + xs[i]
        ends = [x + extra if i % self.size == self.size - 1 and extra else x for i, x in enumerate(xs)]
        for i in reversed(range(len(xs) - 1)):
            if (i + 1) % self.size:
                ends[i] = xs[i] + ends[i + 1]
        windows = range(len(xs) - self.size + 1)
        return [ends[i] + starts[i + self.size - 1] if i % self.size else ends[i] for i in windows]

    def power(self, s: Array) -> Array:
        """s ** -beta."""
        if self.beta == 0.75:
            root = lax.rsqrt(s)
            return root * lax.sqrt(root)
        return jnp.exp(-self.beta * jnp.log(s))

    def powers(self, s: Array) -> tuple[Array, Array]:
        """s ** -beta and s ** -(beta + 1), without a division."""
        power, root = self.power(s), lax.rsqrt(s)
        return power, power * (root * root)

    def gradient(self, xs: Channels, gs: Channels) -> Channels:
        """Gradient for the channels in the middle of the run.

            dx[i] = scale * (g[i] s[i]**-beta - 2 beta x[i] sum_{j whose window holds i} g[j] x[j] s[j]**-(beta + 1))

        Args:
          xs: a run of channels.
          gs: gradients for the channels of it that have a whole window in `xs`.

        Returns:
          One array for each channel all of whose windows are among those of `gs`.
        """
        direct, terms = [], []
        for x, g, s in zip(xs[self.before :], gs, self.divisors(xs), strict=False):
            power, slope = self.powers(s)
            direct.append(g * power)
            terms.append(g * x * slope)
        own = zip(xs[self.before + self.after :], direct[self.after :], self.window_sums(terms), strict=False)
        return [self.scale * (power - (2 * self.beta) * x * total) for x, power, total in own]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def response_norm(x: Array, norm: Norm, interpret: bool) -> Array:
    """y, of the shape and type of `x`; the channels are its last axis."""
    return _call(_forward, x, x, norm=norm, interpret=interpret, name="response_norm")


def _backward_pass(norm: Norm, interpret: bool, x: Array, g: Array) -> tuple[Array]:
    return (_call(_backward, x, x, g, norm=norm, interpret=interpret, name="response_norm_gradient"),)


response_norm.defvjp(lambda x, norm, interpret: (response_norm(x, norm, interpret), x), _backward_pass)


def _call(kernel, like: Array, *inputs: Array, norm: Norm, interpret: bool, name: str) -> Array:
    channels = like.shape[-1]
    size = group_size(channels, like.dtype)
    out = jax.ShapeDtypeStruct((like.size // size, size), like.dtype)
    return call(
        kernel,
        [out],
        [grouped(x, size) for x in inputs],
        name=name,
        axes=(like.size // channels, channels // size),
        block=block_for(name, like.dtype),
        interpret=interpret,
        norm=norm,
    )[0].reshape(like.shape)


def _forward(x_ref, y_ref, *, norm: Norm, axes: tuple[int, int], block: int) -> None:
    pixel, own, exists = elements(block, *axes)
    at = pixel * axes[1] + own
    xs = View(x_ref, own, axes[1]).load(at, exists, -norm.before, x_ref.shape[1] - 1 + norm.after)
    ys = [norm.scale * x * norm.power(s) for x, s in zip(xs[norm.before :], norm.divisors(xs), strict=False)]
    View(y_ref, own, axes[1]).store(at, exists, ys)


def _backward(x_ref, g_ref, dx_ref, *, norm: Norm, axes: tuple[int, int], block: int) -> None:
    pixel, own, exists = elements(block, *axes)
    at, last, reach = pixel * axes[1] + own, x_ref.shape[1] - 1, norm.before + norm.after
    xs = View(x_ref, own, axes[1]).load(at, exists, -reach, last + reach)
    gs = View(g_ref, own, axes[1]).load(at, exists, -norm.after, last + norm.before)
    View(dx_ref, own, axes[1]).store(at, exists, norm.gradient(xs, gs))
