"""Implementations in XLA operations, for CPUs and for GPUs that the Triton kernels do not support."""

from functools import partial
from typing import Any

from jax import Array

from alexnet_kernels.response_norm import per_segment
from alexnet_kernels.xla.max_pool import max_pool
from alexnet_kernels.xla.norm_pool import norm_pool as _norm_pool
from alexnet_kernels.xla.response_norm import response_norm as _response_norm

__all__ = ["max_pool", "norm_pool", "response_norm"]


def response_norm(x: Array, *, segments: int, **settings: Any) -> Array:
    """Compute `alexnet_kernels.response_norm`."""
    return per_segment(partial(_response_norm, **settings), x, segments)


def norm_pool(x: Array, *, segments: int, **settings: Any) -> Array:
    """Compute `alexnet_kernels.norm_pool`."""
    return per_segment(partial(_norm_pool, **settings), x, segments)
