"""Overlapping max-pooling (paper, section 3.4)."""

import jax.numpy as jnp
from jax import Array

from alexnet_kernels import reference, xla
from alexnet_kernels.choice import Implementation, choose

_IMPLEMENTATIONS = {"xla": xla.max_pool, "reference": reference.max_pool}


def max_pool(
    x: Array,
    window: int = 3,
    stride: int = 2,
    *,
    implementation: Implementation | None = None,
) -> Array:
    """The largest activity of each `window` x `window` square, `stride` pixels apart.

    There are `ceil((size - window) / stride) + 1` squares along an axis, as in the original code: the last may overrun the
    edge. Among equal activities the gradient goes to the first, in row-major order. A NaN in a square is its maximum.

    Args:
      x: activities, `[..., height, width, channels]`, any float type.
      window: side of the square, pixels; larger than `stride` is what the paper calls overlapping.
      stride: pixels between squares.
      implementation: None takes the best for the device.

    Returns:
      `[..., pooled height, pooled width, channels]`.

    Raises:
      ValueError: for integer input, a window larger than the image, a stride under 1 or wider than the window, or an
        unknown implementation.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(25.0).reshape(5, 5, 1))[..., 0].tolist()
    [[12.0, 14.0], [22.0, 24.0]]
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"max_pool needs floating-point input, not {x.dtype}")
    if not 1 <= stride <= window:
        raise ValueError(f"max_pool needs 1 <= stride <= window, not stride {stride} and window {window}")
    if window > min(x.shape[-3:-1]):
        raise ValueError(f"max_pool's window of {window} is larger than the {x.shape[-3]}x{x.shape[-2]} image")
    return choose("max_pool", implementation, _IMPLEMENTATIONS)(x, window, stride)
