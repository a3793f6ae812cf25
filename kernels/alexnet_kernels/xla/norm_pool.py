"""ReLU, response normalization and max-pooling in XLA operations."""

from functools import partial

import jax
from jax import Array

from alexnet_kernels.xla.max_pool import backward as pool_backward
from alexnet_kernels.xla.max_pool import forward as pool_forward
from alexnet_kernels.xla.outlined import outlined
from alexnet_kernels.xla.response_norm import gradient as norm_gradient
from alexnet_kernels.xla.response_norm import normalize


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5, 6))
def norm_pool(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> Array:
    """Compute `alexnet_kernels.norm_pool`; only `x` and the positions of the maxima are saved for the gradient."""
    return _fwd(x, window, stride, size, k, alpha, beta)[0]


def _fwd(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> tuple[Array, tuple[Array, Array]]:
    @outlined
    def relu_and_normalize(x: Array) -> Array:
        return normalize(jax.nn.relu(x), size, k, alpha, beta, (-1,))

    maxima, argmax = outlined(partial(pool_forward, window=window, stride=stride))(relu_and_normalize(x))
    return maxima, (argmax, x)


def _bwd(
    window: int, stride: int, size: int, k: float, alpha: float, beta: float, residuals: tuple[Array, Array], g: Array
) -> tuple[Array]:
    argmax, x = residuals
    (g,) = pool_backward(window, stride, (argmax, x), g)
    return (norm_gradient(x, g, size, k, alpha, beta, (-1,), relu=True),)


norm_pool.defvjp(_fwd, _bwd)
