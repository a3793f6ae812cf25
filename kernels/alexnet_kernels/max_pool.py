"""Overlapping max-pooling (paper, section 3.4)."""

import jax.numpy as jnp
from jax import Array

from alexnet_kernels.dispatch import Implementation, dispatch


def max_pool(x: Array, window: int = 3, stride: int = 2, *, implementation: Implementation = None) -> Array:
    """The largest activity of each `window` x `window` square, `stride` pixels apart.

    There are `ceil((size - window) / stride) + 1` squares along an axis, as in the original code: the last may overrun the
    edge. Among equal activities the gradient goes to the first, in row-major order. A NaN in a square is its maximum.

    Args:
      x: activities, `[..., height, width, channels]`, any float type.
      window: side of the square, pixels; larger than `stride` is what the paper calls overlapping.
      stride: pixels between squares.
      implementation: one, several to try in turn, or None for the best that the device can run.

    Returns:
      `[..., pooled height, pooled width, channels]`.

    Raises:
      ValueError: for integer input, a window larger than the image, a stride under 1 or wider than the window, or an
        implementation that is unknown or cannot run.

    Examples:
      >>> import jax.numpy as jnp
      >>> max_pool(jnp.arange(25.0).reshape(5, 5, 1))[..., 0].tolist()
      [[12.0, 14.0], [22.0, 24.0]]
    """
    check_pool("max_pool", x, window, stride)
    return dispatch("max_pool", x, implementation, window=window, stride=stride)


def check_pool(op: str, x: Array, window: int, stride: int) -> None:
    """Raises ValueError where pooling makes no sense."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{op} needs floating-point input, not {x.dtype}")
    if x.ndim < 3:
        raise ValueError(f"{op} needs [..., height, width, channels], not the shape {x.shape}")
    if not 1 <= stride <= window:
        raise ValueError(f"{op} needs 1 <= stride <= window, not stride {stride} and window {window}")
    if window > min(x.shape[-3:-1]):
        raise ValueError(f"{op}'s window of {window} is larger than the {x.shape[-3]}x{x.shape[-2]} image")
