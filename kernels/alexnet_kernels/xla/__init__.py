"""Implementations in XLA operations, for CPUs and for GPUs that the Triton kernels do not support."""

from typing import Any

from jax import Array

from alexnet_kernels.xla.max_pool import max_pool
from alexnet_kernels.xla.norm_pool import norm_pool
from alexnet_kernels.xla.response_norm import response_norm

__all__ = ["max_pool", "norm_pool", "response_norm", "unsupported_reason"]


def unsupported_reason(op: str, x: Array, device: Any, **settings: Any) -> None:
    """Return None: all arguments and devices are supported."""
    return None
