"""Pallas kernels, compiled by Triton, for NVIDIA GPUs from Ampere on."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from alexnet_kernels.triton import norm, pool, self_test

__all__ = ["max_pool", "norm_pool", "response_norm", "unsupported_device", "unsupported_reason"]

MAX_WINDOW, MAX_SIZE = 5, 9
"""Largest pooling and normalization window in `specs.ALL_SPECS`. The kernels contain the code of each pixel and channel of a
window, so that larger ones take minutes to compile and spill registers."""


def unsupported_reason(op: str, x: Array, device: Any, **settings: Any) -> str | None:
    """Return the reason why the kernels do not support this device or these arguments, or None."""
    reason = unsupported_device(device) or unsupported_arguments(op, x, device, **settings)
    return reason or self_test.failure(device.platform, jnp.dtype(x.dtype).name)


def unsupported_device(device: Any) -> str | None:
    """Return the reason why the kernels do not support this kind of device, or None."""
    if (capability := _compute_capability(device)) is None:
        return f"needs an NVIDIA GPU, but the device is {device.device_kind}"
    if capability < 8:
        return f"needs compute capability 8.0 (Ampere) or higher, but {device.device_kind} has {capability}"
    return None


def unsupported_arguments(op: str, x: Array, device: Any, **settings: Any) -> str | None:
    """Return the reason why the kernels do not support these arguments on any device, or None."""
    if jnp.dtype(x.dtype).itemsize > 4:
        return f"supports float32, bfloat16 and float16, not {x.dtype}"
    if x.size >= 2**31:
        return f"supports fewer than 2**31 elements, but the input of shape {x.shape} has {x.size:,}"
    if x.size == 0:
        return f"needs at least one element, but the input has shape {x.shape}"
    if settings.get("window", 1) > MAX_WINDOW:
        return f"supports windows of at most {MAX_WINDOW} pixels, not {settings['window']}"
    if settings.get("size", 1) > MAX_SIZE:
        return f"supports normalization over at most {MAX_SIZE} channels, not {settings['size']}"
    if settings.get("axes", (-1,)) != (-1,):
        return f"supports only axes=(-1,), across channels, not {settings['axes']}"
    if settings.get("alpha", 1) <= 0:
        return f"needs a positive alpha, not {settings['alpha']}"
    return None


def response_norm(x: Array, *, axes: tuple[int, ...] = (-1,), interpret: bool = False, **settings: Any) -> Array:
    """Compute `alexnet_kernels.response_norm` across channels; `interpret` runs Pallas's slow interpreter on any device."""
    return norm.response_norm(x, norm.Norm(**settings), interpret)


def max_pool(x: Array, *, window: int, stride: int, interpret: bool = False) -> Array:
    """Compute `alexnet_kernels.max_pool`; `interpret` runs Pallas's slow interpreter on any device."""
    return pool.max_pool(x, pool.Pool(window, stride), interpret)


def norm_pool(x: Array, *, window: int, stride: int, interpret: bool = False, **settings: Any) -> Array:
    """Compute `alexnet_kernels.norm_pool`; `interpret` runs Pallas's slow interpreter on any device."""
    return pool.max_pool(x, pool.Pool(window, stride, norm.Norm(**settings)), interpret)


def _compute_capability(device: Any) -> float | None:
    """Return the compute capability of an NVIDIA GPU; None for other devices."""
    capability = getattr(device, "compute_capability", None)
    try:
        return float(capability)  # type: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None  # AMD GPUs report a name, such as gfx942
