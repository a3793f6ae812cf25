"""ReLU, response normalization and max-pooling as one operation: the layers after AlexNet's first two convolutions."""

from jax import Array

from alexnet_kernels.dispatch import Implementation, dispatch
from alexnet_kernels.max_pool import check_pool
from alexnet_kernels.response_norm import check_norm


def norm_pool(
    x: Array,
    *,
    window: int = 3,
    stride: int = 2,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    segments: int = 1,
    implementation: Implementation = None,
) -> Array:
    """Compute `max_pool(response_norm(relu(x)))` (paper, sections 3.1, 3.3, 3.4).

    As separate operations, the three write and read full-size activations twice before pooling reduces them to a quarter. The
    fused kernel makes one pass. For the gradient, it saves only `x` and the index of each maximum within its window; the
    normalization is recomputed.

    Args:
      x: output of a convolution, `[..., height, width, channels]`, any float type.
      window: side of a pooling window, pixels.
      stride: pixels between the starts of neighboring pooling windows.
      size: number of channels in a normalization window.
      k, alpha, beta, segments: constants and segments of the normalization, as in `response_norm`.
      implementation: name of an implementation, or several names of which the first supported one is used. None uses the first
        of `alexnet_kernels.dispatch.current_order()` that supports the device and the arguments.

    Returns:
      Pooled activations, `[..., pooled height, pooled width, channels]`.

    Raises:
      ValueError: under the same conditions as `response_norm` and `max_pool`.

    Examples:
      >>> import jax.numpy as jnp
      >>> norm_pool(jnp.ones((1, 55, 55, 96))).shape
      (1, 27, 27, 96)
    """
    check_norm("norm_pool", x, size, segments)
    check_pool("norm_pool", x, window, stride)
    settings = {"window": window, "stride": stride, "size": size, "k": k, "alpha": alpha, "beta": beta, "segments": segments}
    return dispatch("norm_pool", x, implementation, **settings)
