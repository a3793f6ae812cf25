"""Benchmark of the operations on a CPU: the `xla` implementation, with custom gradients, against the `reference` implementation.

make bench-kernels

Times the forward and backward pass on the output shape of the first convolution, at batch size 32 in float32. Rounds alternate
between the two implementations, so that changes in the speed of the machine affect both; the speedup is the median over rounds of
the ratio of times. Freed memory is retained, because allocating it from the operating system again can take as long as the
operation. The last line of the output is one JSON object.
"""

import json
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import tyro

import alexnet_kernels
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.files import write_json
from alexnet_kernels.specs import OPERATIONS, conv1_spec

ROUNDS, CALLS = 15, 5
RETAIN_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "500000000"}
"""Environment variables that make glibc retain freed memory; they are read when a process starts."""
RESULT = Path(__file__).parents[1] / "results" / "kernels_cpu.json"


def compile_operation(op: str, implementation: str):
    """Return a compiled function without arguments that runs the forward and backward pass of an operation on random inputs."""
    spec = conv1_spec(op, batch=32)
    function = partial(getattr(alexnet_kernels, op), implementation=implementation, **spec.settings)

    def forward_and_backward(x, g):
        y, vjp = jax.vjp(function, x)
        return y, vjp(g)[0]

    x = 40 * jax.random.normal(jax.random.key(0), spec.shape)
    g = jax.random.normal(jax.random.key(1), jax.eval_shape(function, x).shape)
    run = jax.jit(forward_and_backward)
    jax.block_until_ready(run(x, g))
    return partial(run, x, g)


def seconds(run) -> float:
    """Return the median time of `CALLS` calls, in seconds."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure all operations; write and print the results."""
    result = {}
    for op in OPERATIONS:
        runs = {name: compile_operation(op, name) for name in ("xla", "reference")}
        times = [{name: seconds(run) for name, run in runs.items()} for _ in range(ROUNDS)]
        speedup = statistics.median(measured["reference"] / measured["xla"] for measured in times)
        milliseconds = {name: 1e3 * statistics.median(measured[name] for measured in times) for name in runs}
        result[f"{op}_speedup"] = round(speedup, 2)
        result[f"{op}_milliseconds"] = {name: round(ms, 1) for name, ms in milliseconds.items()}
        reference, xla = milliseconds["reference"], milliseconds["xla"]
        print(f"{op}: xla {xla:.1f} ms, reference {reference:.1f} ms, speedup {speedup:.2f}", flush=True)
    result |= {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    print(json.dumps(result))
    write_json(RESULT, result)


if __name__ == "__main__":
    if not os.environ.keys() >= RETAIN_FREED_MEMORY.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | RETAIN_FREED_MEMORY)
    with exit_on_error():
        tyro.cli(main, description=__doc__)
