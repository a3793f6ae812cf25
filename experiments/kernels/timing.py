"""Times on a device: medians of blocks of calls, over inputs that no cache can hold."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def seconds_a_call(block: Callable[[], Any], calls: int, *, rounds: int = 15) -> float:
    """Median time of one of the `calls` that `block` starts and waits for; two rounds go first, to warm up."""
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        block()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:]) / calls


def jax_seconds(function: Callable, inputs: Sequence[tuple], repeats: int = 10) -> float:
    """Time of `function` on each set of inputs in turn, in seconds.

    A block goes through all sets in one jitted function, `repeats` times without waiting: the device always has work, so that
    the host's share is hidden.
    """
    run = jax.jit(lambda sets: [function(*each) for each in sets])
    return seconds_a_call(lambda: jax.block_until_ready([run(list(inputs)) for _ in range(repeats)][-1]), repeats * len(inputs))


def torch_seconds(function: Callable, inputs: Sequence[tuple], repeats: int = 10) -> float:
    """The same for PyTorch."""
    import torch  # type: ignore[reportMissingImports]

    def block() -> None:
        for _ in range(repeats):
            for each in inputs:
                function(*each)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return seconds_a_call(block, repeats * len(inputs))


def copy_bandwidth(megabytes: int = 1024) -> float:
    """Bytes/s read and written together, of a copy on the device."""
    sets = [(jnp.full((megabytes << 18,), float(n), jnp.float32),) for n in range(2)]
    seconds = jax_seconds(lambda x: x + 1, sets)
    return 2 * sets[0][0].nbytes / seconds


def matmul_rate(precision: str, size: int = 8192) -> float:
    """FLOP/s of a square matrix product, with what JAX takes for float32 on this device by default (TF32 from Ampere on)."""
    keys = jax.random.split(jax.random.key(0), 4)
    a, b, c, d = (jax.random.normal(key, (size, size), precision) for key in keys)
    return 2 * size**3 / jax_seconds(jnp.dot, [(a, b), (c, d)], repeats=3)
