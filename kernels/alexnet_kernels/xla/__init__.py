"""Implementations in plain XLA operations, for CPUs and for GPUs that no kernel supports."""

from typing import Any

import jax
from jax import Array

from alexnet_kernels.xla.max_pool import max_pool
from alexnet_kernels.xla.response_norm import response_norm

__all__ = ["max_pool", "norm_pool", "response_norm", "unsupported"]


def unsupported(op: str, x: Array, device: Any, **settings: Any) -> None:
    return None


def norm_pool(x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float) -> Array:
    return max_pool(response_norm(jax.nn.relu(x), size, k, alpha, beta, (-1,)), window, stride)
