"""Response normalization and max-pooling with hand-written gradients: Pallas kernels on GPUs, XLA operations elsewhere.

Examples:
  >>> import jax.numpy as jnp
  >>> from alexnet_kernels import max_pool, norm_pool, response_norm
  >>> max_pool(response_norm(jnp.ones((1, 55, 55, 96)))).shape
  (1, 27, 27, 96)

This package depends only on JAX, not on `alexnet_jax`.
"""

from alexnet_kernels.dispatch import default_implementation
from alexnet_kernels.max_pool import max_pool
from alexnet_kernels.norm_pool import norm_pool
from alexnet_kernels.response_norm import response_norm

__all__ = ["default_implementation", "max_pool", "norm_pool", "response_norm"]
