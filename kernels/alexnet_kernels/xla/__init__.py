"""Implementations in plain XLA operations, for CPUs and for GPUs that no kernel backend supports."""

from alexnet_kernels.xla.max_pool import max_pool
from alexnet_kernels.xla.response_norm import response_norm

__all__ = ["max_pool", "response_norm"]
