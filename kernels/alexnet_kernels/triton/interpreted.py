"""Triton kernels run by Pallas's interpreter, which is slow but works on any device, for tests."""

from functools import partial

from alexnet_kernels import triton
from alexnet_kernels.triton import unsupported_arguments as unsupported_reason

__all__ = ["max_pool", "norm_pool", "response_norm", "unsupported_reason"]

response_norm = partial(triton.response_norm, interpret=True)
max_pool = partial(triton.max_pool, interpret=True)
norm_pool = partial(triton.norm_pool, interpret=True)
