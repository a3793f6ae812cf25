"""ReLU, response normalization and overlapping max-pooling in one: what follows AlexNet's first two convolutions."""

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
    implementation: Implementation = None,
) -> Array:
    """`max_pool(response_norm(relu(x)))` (paper, sections 3.1, 3.3, 3.4).

    Apart, the three write and read activities of full size twice before pooling makes them a quarter. A kernel does it in one
    pass, keeping of the activities only `x` and, for each maximum, the place where it was found; its gradient computes the
    normalization again.

    Args:
      x: what a convolution puts out, `[..., height, width, channels]`, any float type.
      window: side of the pooled square, pixels.
      stride: pixels between squares.
      size: kernel maps that a normalization sums over.
      k, alpha, beta: constants of the normalization, as in `response_norm`.
      implementation: one, several to try in turn, or None for the best that the device can run.

    Returns:
      `[..., pooled height, pooled width, channels]`.

    Raises:
      ValueError: as `response_norm` and `max_pool` do.

    Examples:
      >>> import jax.numpy as jnp
      >>> norm_pool(jnp.ones((1, 55, 55, 96))).shape
      (1, 27, 27, 96)
    """
    check_norm("norm_pool", x, size)
    check_pool("norm_pool", x, window, stride)
    settings = {"window": window, "stride": stride, "size": size, "k": k, "alpha": alpha, "beta": beta}
    return dispatch("norm_pool", x, implementation, **settings)
