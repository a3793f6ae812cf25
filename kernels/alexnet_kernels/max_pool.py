"""Overlapping max-pooling (paper, section 3.4)."""

import jax.numpy as jnp
from jax import Array

from alexnet_kernels.dispatch import Implementation, dispatch


def max_pool(x: Array, window: int = 3, stride: int = 2, *, implementation: Implementation = None) -> Array:
    """Compute the maximum of each `window` x `window` square of pixels, channel by channel.

    There are `ceil((size - window) / stride) + 1` windows along an axis, as in the original code: the last one may extend past
    the edge. If several pixels of a window equal its maximum, the gradient goes to the first of them in row-major order. The
    maximum of a window with a NaN is NaN.

    Args:
      x: activations, `[..., height, width, channels]`, any float type.
      window: side of a window, pixels. Windows overlap if it is larger than `stride`.
      stride: pixels between the starts of neighboring windows.
      implementation: name of an implementation, or several names of which the first supported one is used. None uses the first
        of `alexnet_kernels.dispatch.current_order()` that supports the device and the arguments.

    Returns:
      Maxima, `[..., pooled height, pooled width, channels]`.

    Raises:
      ValueError: for integer input, a window larger than the image, a stride under 1 or wider than the window, or an
        implementation that is unknown or unsupported.

    Examples:
      >>> import jax.numpy as jnp
      >>> max_pool(jnp.arange(25.0).reshape(5, 5, 1))[..., 0].tolist()
      [[12.0, 14.0], [22.0, 24.0]]
    """
    check_pool("max_pool", x, window, stride)
    return dispatch("max_pool", x, implementation, window=window, stride=stride)


def pooled_size(size: int, window: int, stride: int) -> int:
    """Return the number of pooling windows along an axis.

    The last window may extend past the edge, so that every pixel is covered (layer.py of the 2012 code).

    Args:
      size: length of the axis, pixels.
      window: length of a window, pixels.
      stride: pixels between the starts of neighboring windows.
    """
    return -(-(size - window) // stride) + 1


def pixels_past_edge(size: int, window: int, stride: int) -> int:
    """Return the number of pixels by which the last of the `pooled_size(size, window, stride)` windows extends past the edge."""
    return (pooled_size(size, window, stride) - 1) * stride + window - size


def check_pool(op: str, x: Array, window: int, stride: int) -> None:
    """Check the arguments of a pooling operation.

    Raises:
      ValueError: for integer input, fewer than three axes, a window larger than the image, or a stride under 1 or wider than the
        window.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{op} requires floating-point input, got {x.dtype}")
    if x.ndim < 3:
        raise ValueError(f"{op} requires input of shape [..., height, width, channels], got {x.shape}")
    if not 1 <= stride <= window:
        raise ValueError(f"{op} requires 1 <= stride <= window, got stride {stride} and window {window}")
    if window > min(x.shape[-3:-1]):
        raise ValueError(f"{op} requires a window no larger than the image, got {window} for {x.shape[-3]}x{x.shape[-2]} pixels")
