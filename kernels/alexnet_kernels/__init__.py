"""AlexNet's unusual operations, each with a hand-written gradient: Pallas kernels on GPUs, XLA operations elsewhere.

Examples:
  >>> import jax.numpy as jnp
  >>> from alexnet_kernels import max_pool, norm_pool, response_norm
  >>> max_pool(response_norm(jnp.ones((1, 55, 55, 96)))).shape
  (1, 27, 27, 96)

This package needs jax alone and knows nothing of the network that uses it.
"""

from alexnet_kernels.dispatch import default_implementation
from alexnet_kernels.max_pool import max_pool
from alexnet_kernels.norm_pool import norm_pool
from alexnet_kernels.response_norm import response_norm

__all__ = ["max_pool", "norm_pool", "default_implementation", "response_norm"]
