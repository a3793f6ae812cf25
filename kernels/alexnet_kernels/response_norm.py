"""Local response normalization (paper, section 3.3)."""

import jax.numpy as jnp
from jax import Array

from alexnet_kernels import reference, xla
from alexnet_kernels.choice import Implementation, choose

_IMPLEMENTATIONS = {"xla": xla.response_norm, "reference": reference.response_norm}


def response_norm(
    x: Array,
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    axes: tuple[int, ...] = (-1,),
    implementation: Implementation | None = None,
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
      implementation: None takes the best for the device.

    Raises:
      ValueError: for integer input, a window under 1, a positive axis, or an unknown implementation.

    >>> import jax.numpy as jnp
    >>> float(response_norm(jnp.ones((1, 1, 8)), k=1.0, alpha=0.6, beta=1.0)[0, 0, 3])  # 1 / (1 + 0.6 * 5)
    0.25
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"response_norm needs floating-point input, not {x.dtype}")
    if size < 1:
        raise ValueError(f"response_norm needs a window of at least 1, not {size}")
    if any(axis >= 0 or axis < -x.ndim for axis in axes):
        raise ValueError(f"response_norm takes axes counted from the end, -{x.ndim} to -1, not {axes}")
    return choose("response_norm", implementation, _IMPLEMENTATIONS)(x, size, k, alpha, beta, axes)
