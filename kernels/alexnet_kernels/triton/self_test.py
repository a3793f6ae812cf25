"""Test of the kernels on the GPU at hand before they are used: a driver or a version of JAX may fail to compile them."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_kernels import reference
from alexnet_kernels.triton import pool
from alexnet_kernels.triton.norm import Norm

SETTINGS = {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}
TOLERANCE = 0.05
"""Maximum relative error, ||kernel - reference|| / ||reference||."""


@cache
def failure(platform: str, dtype: str) -> str | None:
    """Return the reason why `norm_pool` and its gradient fail on the first local device of a platform, or None.

    The first call takes a few seconds. It warns if the kernels fail, since slower operations are used in their place.

    Args:
      platform: JAX platform; None is returned if this process has no such device, as when compiling for a GPU without one.
      dtype: dtype of the activations.
    """
    try:
        device = jax.local_devices(backend=platform)[0]
    except RuntimeError:
        return None
    # In another thread: this can be called while a function is traced, and contexts such as its mesh are those of the thread.
    with ThreadPoolExecutor(1) as executor:
        reason = executor.submit(compare, device, dtype).result()
    if reason is not None:
        warnings.warn(f"the Triton kernels are not used: on {device.device_kind}, a test of them {reason}", stacklevel=2)
        return f"fails a test on {device.device_kind}, which {reason}"
    return None


def compare(device: Any, dtype: str, *, interpret: bool = False) -> str | None:
    """Compare `norm_pool` and its gradient with the reference in float32 on a device; return what is wrong, or None."""
    rng = np.random.default_rng(0)
    # NumPy arrays, so that transfers are explicit: others are errors with `jax_transfer_guard=disallow`.
    x = (rng.permutation(2 * 7 * 7 * 16).reshape(2, 7, 7, 16) / 20 - 30).astype(jnp.dtype(dtype))
    g = rng.normal(size=(2, 3, 3, 16)).astype(x.dtype)
    kernels = partial(pool.max_pool, pool=pool.Pool(3, 2, Norm(**SETTINGS)), interpret=interpret)

    def with_gradient(op: Any, x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, vjp = jax.vjp(op, x)
        return y, vjp(g)[0]

    try:
        results = jax.device_get(jax.jit(partial(with_gradient, kernels))(*jax.device_put((x, g), device)))
    except Exception as error:  # the compilers and drivers raise exceptions of many types
        return f"raised {' '.join(f'{type(error).__name__}: {error}'.split())[:200]}"
    exact = jax.device_put((x.astype(np.float32), g.astype(np.float32)), device)
    correct = partial(reference.norm_pool, window=3, stride=2, **SETTINGS)
    expected = jax.device_get(jax.jit(partial(with_gradient, correct))(*exact))
    for ours, true in zip(results, expected, strict=True):
        error = np.linalg.norm(ours.astype(np.float32) - true) / np.linalg.norm(true)
        if not error <= TOLERANCE:
            return f"computed numbers with a relative error of {error:.2g}"
    return None
