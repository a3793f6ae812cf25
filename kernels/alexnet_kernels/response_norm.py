"""Local response normalization (paper, section 3.3)."""

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
    implementation: Implementation = None,
) -> Array:
    """Divides each activity by a power of the squared activities around it.

        y[i] = x[i] / (k + alpha * sum_{j in window of `size` around i} x[j]**2) ** beta

    Args:
      x: activities, `[..., height, width, channels]`, any float type.
      size: kernel maps in the window; it is clipped at the first and the last one.
      k: keeps the divisor away from zero.
      alpha: weight of the sum, as written in the paper. The original code, Caffe and PyTorch divide theirs by `size`.
      beta: the power; 0.75 needs no `pow`.
      axes: negative axes that the window runs over: `(-1,)` across channels; `(-3, -2)` within each map, the `rnorm` of
        the original code.
      implementation: one, several to try in turn, or None for the best that the device can run.

    Raises:
      ValueError: for integer input, a window under 1, a positive axis, or an implementation that is unknown or cannot run.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(response_norm(jnp.ones((1, 1, 8)), k=1.0, alpha=0.6, beta=1.0)[0, 0, 3])  # 1 / (1 + 0.6 * 5)
      0.25
    """
    check_norm("response_norm", x, size)
    if any(axis >= 0 or axis < -x.ndim for axis in axes):
        raise ValueError(f"response_norm takes axes counted from the end, -{x.ndim} to -1, not {axes}")
    return dispatch("response_norm", x, implementation, size=size, k=k, alpha=alpha, beta=beta, axes=tuple(axes))


def check_norm(op: str, x: Array, size: int) -> None:
    """Raises ValueError where a normalization makes no sense."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{op} needs floating-point input, not {x.dtype}")
    if size < 1:
        raise ValueError(f"{op} needs a normalization window of at least 1, not {size}")
