"""Local response normalization (paper, section 3.3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_kernels.dispatch import Implementation, dispatch


def response_norm(
    x: Array,
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    axes: tuple[int, ...] = (-1,),
    segments: int = 1,
    implementation: Implementation = None,
) -> Array:
    """Divide each activation by a power of the sum of squares in a window around it.

        y[i] = x[i] / (k + alpha * sum_{j in window of `size` around i} x[j]**2) ** beta

    Args:
      x: activations, `[..., height, width, channels]`, any float type.
      size: number of elements in a window along each axis; windows are clipped at both ends of an axis.
      k: constant that keeps the divisor away from zero.
      alpha: factor of the sum, as in the paper. The original code, Caffe and PyTorch divide their factor by `size`.
      beta: exponent; 0.75 is computed without `pow`.
      axes: negative axes along which the window extends: `(-1,)` across channels; `(-3, -2)` within each channel, as `rnorm` of
        the original code does.
      segments: number of equal parts of the channels, across which no window extends: 2 for two towers side by side.
      implementation: name of an implementation, or several names of which the first supported one is used. None uses the first
        of `alexnet_kernels.dispatch.current_order()` that supports the device and the arguments.

    Returns:
      Normalized activations, with the shape and dtype of `x`.

    Raises:
      ValueError: for integer input, a window under 1, a positive or repeated axis, segments that do not divide the channels,
        or an implementation that is unknown or unsupported.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(response_norm(jnp.ones((1, 1, 8)), k=1.0, alpha=0.6, beta=1.0)[0, 0, 3])  # 1 / (1 + 0.6 * 5)
      0.25
    """
    check_norm("response_norm", x, size, segments)
    if any(axis >= 0 or axis < -x.ndim for axis in axes) or len(set(axes)) < len(axes):
        raise ValueError(f"response_norm requires distinct negative axes, -{x.ndim} to -1, got {axes}")
    settings = {"size": size, "k": k, "alpha": alpha, "beta": beta, "axes": tuple(axes), "segments": segments}
    return dispatch("response_norm", x, implementation, **settings)


def per_segment(function: Callable[[Array], Array], x: Array, segments: int) -> Array:
    """Return `function` of each of several equal parts of the channels, concatenated along the channels.

    Args:
      function: function of an array `[..., channels]`, which may change the number of channels.
      x: array `[..., segments * channels]`.
      segments: number of parts.
    """
    if segments == 1:
        return function(x)
    y = jax.vmap(function, -2, -2)(x.reshape(*x.shape[:-1], segments, x.shape[-1] // segments))
    return y.reshape(*y.shape[:-2], segments * y.shape[-1])


def check_norm(op: str, x: Array, size: int, segments: int) -> None:
    """Check the arguments of a normalization.

    Raises:
      ValueError: for integer input, a window under 1, or segments that do not divide the channels.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{op} requires floating-point input, got {x.dtype}")
    if size < 1:
        raise ValueError(f"{op} requires a normalization window of at least 1, got {size}")
    if segments < 1 or x.shape[-1] % segments:
        raise ValueError(f"{op} requires segments that divide the channels, got {segments} for {x.shape[-1]} channels")
