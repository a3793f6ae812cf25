"""Timing of functions on a device: medians over blocks of asynchronous calls."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def seconds_per_call(block: Callable[[], Any], calls: int, *, rounds: int = 15) -> float:
    """Return the mean time per call in the median block, in seconds.

    Args:
      block: function that dispatches `calls` calls and waits for their results.
      calls: number of calls in a block.
      rounds: number of timed blocks, after two warm-up blocks.
    """
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        block()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]) / calls


def jax_seconds_per_call(function: Callable, inputs: Sequence[tuple], repeats: int = 10) -> float:
    """Return the mean time of `function(*args)` for the `args` in `inputs`, in seconds.

    One jitted function calls `function` on every element of `inputs`. It is dispatched `repeats` times before the host waits for
    the results, so that the device is never idle and the time on the host is not measured.

    Args:
      function: function to time.
      inputs: arguments of each call; use several elements so that no call finds its inputs in a cache.
      repeats: number of dispatches per timed block.
    """
    run = jax.jit(lambda all_args: [function(*args) for args in all_args])

    def block() -> None:
        jax.block_until_ready([run(list(inputs)) for _ in range(repeats)][-1])

    return seconds_per_call(block, repeats * len(inputs))


def torch_seconds_per_call(function: Callable, inputs: Sequence[tuple], repeats: int = 10) -> float:
    """Return the mean time per call of a PyTorch function for the `args` in `inputs`, in seconds."""
    import torch  # type: ignore[reportMissingImports]

    def block() -> None:
        for _ in range(repeats):
            for args in inputs:
                function(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return seconds_per_call(block, repeats * len(inputs))


def measure_copy_bandwidth(megabytes: int = 1024) -> float:
    """Return the memory bandwidth of an elementwise float32 operation: bytes read and written per second."""
    inputs = [(jnp.full((megabytes << 18,), float(n), jnp.float32),) for n in range(2)]
    return 2 * inputs[0][0].nbytes / jax_seconds_per_call(lambda x: x + 1, inputs)


def measure_matmul_flops(precision: str, size: int = 8192) -> float:
    """Return the FLOP/s of a square matrix product at JAX's default precision (TF32 for float32 on Ampere and later)."""
    keys = jax.random.split(jax.random.key(0), 4)
    a, b, c, d = (jax.random.normal(key, (size, size), precision) for key in keys)
    return 2 * size**3 / jax_seconds_per_call(jnp.dot, [(a, b), (c, d)], repeats=3)
