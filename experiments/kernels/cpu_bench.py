"""The operations without a GPU: our form in XLA operations against the one that XLA derives from the plain definition.

make bench-kernels

Forward and backward behind the first convolution, batch 32, float32. The two take turns, so that a machine whose speed
drifts treats both alike; the figure is the median of the rounds' ratios. Freed memory is kept, because to get as much from
the system again can take as long as the operation. The last line is one JSON object.
"""

import json
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax

import alexnet_kernels
from alexnet_kernels.specs import OPERATIONS, first_layer

ROUNDS, CALLS = 15, 5
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "500000000"}
"""For glibc, which reads them when a process starts."""
RESULT = Path(__file__).parents[1] / "results" / "kernels_cpu.json"


def compiled(op: str, implementation: str):
    """Jitted values and gradient, and arguments for it."""
    spec = first_layer(op, batch=32)
    function = partial(getattr(alexnet_kernels, op), implementation=implementation, **spec.settings)

    def both(x, g):
        y, vjp = jax.vjp(function, x)
        return y, vjp(g)[0]

    x = 40 * jax.random.normal(jax.random.key(0), spec.shape)
    g = jax.random.normal(jax.random.key(1), jax.eval_shape(function, x).shape)
    run = jax.jit(both)
    jax.block_until_ready(run(x, g))
    return partial(run, x, g)


def seconds(run) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    result = {}
    for op in OPERATIONS:
        runs = {name: compiled(op, name) for name in ("xla", "reference")}
        times = [{name: seconds(run) for name, run in runs.items()} for _ in range(ROUNDS)]
        speedup = statistics.median(each["reference"] / each["xla"] for each in times)
        milliseconds = {name: 1e3 * statistics.median(each[name] for each in times) for name in runs}
        result[f"{op}_speedup"] = round(speedup, 2)
        result[f"{op}_milliseconds"] = {name: round(each, 1) for name, each in milliseconds.items()}
        print(f"{op}: ours {milliseconds['xla']:.1f} ms, XLA's {milliseconds['reference']:.1f} ms, {speedup:.2f}x", flush=True)
    result |= {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    if not os.environ.keys() >= KEEP_MEMORY.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    main()
