"""Kernels in Pallas, compiled by Triton, for NVIDIA GPUs from Ampere on."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from alexnet_kernels.triton import norm, pool

__all__ = ["max_pool", "norm_pool", "response_norm", "unsupported_reason"]


def unsupported_reason(op: str, x: Array, device: Any, **settings: Any) -> str | None:
    """Why the kernels cannot do this, or None."""
    if (generation := _generation(device)) is None:
        return f"needs an NVIDIA GPU, and this is {device.device_kind}"
    if generation < 8:
        return f"needs compute capability 8.0 (Ampere) or more, and {device.device_kind} has {generation}"
    return unsupported_arguments(op, x, device, **settings)


def unsupported_arguments(op: str, x: Array, device: Any, **settings: Any) -> str | None:
    """`unsupported_reason` on a device that can run the kernels: why they do not take these arguments, or None."""
    if jnp.dtype(x.dtype).itemsize > 4:
        return f"takes float32, bfloat16 and float16, not {x.dtype}"
    if x.size >= 2**31:
        return f"counts elements in 32 bits, and {x.shape} has {x.size:,}"
    if settings.get("axes", (-1,)) != (-1,):
        return f"normalizes across channels, axes (-1,), not {settings['axes']}"
    if settings.get("alpha", 1) <= 0:
        return f"needs a positive alpha, not {settings['alpha']}"
    return None


def response_norm(
    x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...] = (-1,), *, interpret: bool = False
) -> Array:
    """The kernel of that name; `interpret` runs it on any device, slowly."""
    return norm.response_norm(x, norm.Norm(size, k, alpha, beta), interpret)


def max_pool(x: Array, window: int, stride: int, *, interpret: bool = False) -> Array:
    """The kernel of that name; `interpret` as above."""
    return pool.pooled(x, pool.Pool(window, stride), interpret)


def norm_pool(
    x: Array, window: int, stride: int, size: int, k: float, alpha: float, beta: float, *, interpret: bool = False
) -> Array:
    """The kernel of that name; `interpret` as above."""
    return pool.pooled(x, pool.Pool(window, stride, norm.Norm(size, k, alpha, beta)), interpret)


def _generation(device: Any) -> float | None:
    """Compute capability of an NVIDIA GPU."""
    capability = getattr(device, "compute_capability", None)
    try:
        return float(capability)  # type: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None  # no GPU, or one of another maker
