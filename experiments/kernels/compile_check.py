"""Compile all kernels and training steps for GPUs on a machine without one, and check register use and memory traffic.

make kernel-check                      three GPUs, six channel counts, two dtypes
make kernel-check ARGS=--quick         one GPU, two channel counts, one training step; run by .ci/run

The last line of the output is one JSON object. The exit status is 1 if a kernel does not compile or spills registers, if
norm_pool moves more than `LIMITS` of the bytes of its reference implementation, if the training step moves more than
`MAX_GLUE` of its bytes only to rearrange arrays, or more than `MAX_MEGABYTES`, or if devices that divide a batch send more than
`MAX_SENT` of the bytes of the exact sum of gradients. Nothing is executed: the check detects no race
conditions and measures no speed.
"""

import toolchain

if __name__ == "__main__":
    toolchain.set_up()

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from dataclasses import astuple
from pathlib import Path
from typing import Any

import deviceless
import jax
import jax.numpy as jnp
from operations import argument_shapes, operation, with_gradient
from rich.console import Console
from rich.table import Table
from step_traffic import EXACT, GPUS, KERNEL_NAMES, compiled_steps, log, sent_bytes, sent_table, step_table

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.files import write_json
from alexnet_jax.parallel.gradients import GradientSum
from alexnet_kernels.specs import CHANNEL_COUNTS, OPERATIONS, conv1_spec

DTYPES = (jnp.float32, jnp.bfloat16)
LIMITS = {"forward": 0.45, "backward": 0.12}
"""Maximum ratio of the bytes moved by the norm_pool kernels to those moved by the reference implementation."""
MAX_GLUE = 0.01
"""Maximum fraction of the bytes of the default training step that kernels move only to rearrange arrays (`hlo.Traffic.glue`). It
is not required in float32 before Hopper, where XLA moves the channels of every convolution to the front."""
MAX_SENT = {GradientSum("bfloat16"): 0.50, GradientSum(sharded=True): 0.751, GradientSum("bfloat16", sharded=True): 0.501}
"""Maximum bytes that a device sends, as a fraction of those of the exact sum. Updated parameters are sent in bfloat16, which the
next step reads; biases that cannot be divided evenly are summed by all devices."""
MAX_MEGABYTES = {"bfloat16": 0.80 * 4336}
"""Maximum size of what the default training step moves on an H100, by precision. It moved 4,336 MB with separate convolutions per
tower and a cast of all parameters in every step."""
RESULT = Path(__file__).parents[1] / "results" / "kernel_check.json"

console = Console(width=130)


def compile_kernels(gpu: str, dtype: Any, channels: int) -> list[deviceless.Kernel]:
    """Compile the kernels of all operations for one number of channels."""
    specs = [conv1_spec(op, channels=channels) for op in OPERATIONS]

    def all_operations(x, *gs):
        return [with_gradient(spec, "triton")(x, g) for spec, g in zip(specs, gs, strict=True)]

    x, gs = argument_shapes(specs[0], dtype)[0], [argument_shapes(spec, dtype)[1] for spec in specs]
    return deviceless.compile_for(gpu, jax.jit(all_operations), x, *gs, kernel_names=KERNEL_NAMES).kernels


def kernel_table(gpus: tuple[str, ...], widths: tuple[int, ...]) -> tuple[Table, int]:
    """Return a table of the registers, spills and shared memory of every kernel, and the total number of spilled bytes."""
    kernels_by_key: dict[tuple[str, str, str], list[deviceless.Kernel]] = defaultdict(list)
    jobs = [(gpu, dtype, width) for gpu in gpus for dtype in DTYPES for width in widths]
    start = time.monotonic()
    for done, (gpu, dtype, width) in enumerate(jobs):
        kernels = compile_kernels(gpu, dtype, width)
        if len(kernels) != 2 * len(OPERATIONS):
            sys.exit(f"{gpu}, {width} channels: compiled the kernels {[k.name for k in kernels]}, expected {2 * len(OPERATIONS)}")
        for kernel in kernels:
            kernels_by_key[kernel.name, jnp.dtype(dtype).name, gpu].append(kernel)
        seconds_left = (time.monotonic() - start) / (done + 1) * (len(jobs) - done - 1)
        log(f"{done + 1}/{len(jobs)} {gpu} {jnp.dtype(dtype).name} {width} channels, {seconds_left:.0f} s left")
    table = Table("kernel", "dtype", "GPU", "registers", "spilled bytes", "shared bytes", title=f"channels: {widths}")
    for (name, dtype, gpu), kernels in sorted(kernels_by_key.items()):
        registers = sorted(kernel.registers for kernel in kernels)
        spilled, shared = (max(sizes) for sizes in zip(*((k.spill_bytes, k.shared_bytes) for k in kernels), strict=True))
        table.add_row(name, dtype, gpu, f"{registers[0]}-{registers[-1]}", str(spilled), str(shared))
    return table, sum(kernel.spill_bytes for kernels in kernels_by_key.values() for kernel in kernels)


def byte_ratios(op: str, dtype: Any) -> dict[str, Any]:
    """Return the memory traffic of the kernels and of the reference implementation, in MB, and their ratio.

    "backward" is the traffic of both passes minus that of the forward pass.
    """
    spec = conv1_spec(op)
    x, g = argument_shapes(spec, dtype)
    moved = {}
    for implementation in ("triton", "reference"):
        forward_bytes, total_bytes = (
            deviceless.compile_for(
                "h100", jax.jit(function(spec, implementation)), *inputs, kernel_names=KERNEL_NAMES
            ).traffic.moved
            for function, inputs in ((operation, (x,)), (with_gradient, (x, g)))
        )
        moved[implementation] = {"forward": forward_bytes, "backward": total_bytes - forward_bytes}
    return {
        "op": op,
        "dtype": jnp.dtype(dtype).name,
        "megabytes": {name: {p: round(n / 1e6) for p, n in passes.items()} for name, passes in moved.items()},
        "ratio": {p: round(moved["triton"][p] / moved["reference"][p], 3) for p in ("forward", "backward")},
    }


def bytes_table(rows: list[dict[str, Any]]) -> Table:
    """Return a table of the results of `byte_ratios`."""
    table = Table("operation", "dtype", "pass", "reference, MB", "triton, MB", "ratio", title="[256, 55, 55, 96] on h100")
    for row in rows:
        for direction in ("forward", "backward"):
            megabytes = [str(row["megabytes"][name][direction]) for name in ("reference", "triton")]
            table.add_row(row["op"], row["dtype"], direction, *megabytes, f"{row['ratio'][direction]:.3f}")
    return table


def find_failures(
    max_ratios: dict[str, float], step_rows: list[dict[str, Any]], sent_rows: list[dict[str, Any]], spilled: int
) -> list[str]:
    """Return a line for each limit that is exceeded.

    Args:
      max_ratios: largest ratios of bytes of norm_pool, see `byte_ratios`, by pass.
      step_rows: results of `compiled_steps`.
      sent_rows: results of `sent_bytes`.
      spilled: bytes of registers that the kernels spill.
    """
    failures = [
        f"norm_pool {direction} moves {ratio} times the bytes of the reference, expected at most {LIMITS[direction]}"
        for direction, ratio in max_ratios.items()
        if ratio > LIMITS[direction]
    ]
    for row in step_rows:
        channels_last = row["precision"] == "bfloat16" or row["gpu"] == "h100"
        if row["lowering"] == "grouped" and channels_last and row["glue_mb"] > MAX_GLUE * row["moved_mb"]:
            failures.append(
                f"the {row['precision']} step on {row['gpu']} moves {row['glue_mb']} of {row['moved_mb']} MB to rearrange, "
                f"expected at most {MAX_GLUE:.0%}"
            )
        limit = MAX_MEGABYTES.get(row["precision"], math.inf)
        if row["lowering"] == "grouped" and row["gpu"] == "h100" and row["moved_mb"] > limit:
            failures.append(f"the {row['precision']} step on h100 moves {row['moved_mb']} MB, expected at most {limit:.0f}")
    exact_mb = {row["devices"]: row["total_mb"] for row in sent_rows if (row["dtype"], row["sharded"]) == astuple(EXACT)}
    for row in sent_rows:
        limit = MAX_SENT.get(GradientSum(row["dtype"], row["sharded"]), 1.0) * exact_mb[row["devices"]]
        if row["total_mb"] > round(limit, 1):
            failures.append(f"each of {row['devices']} devices sends {row['total_mb']} MB, expected at most {limit:.1f} ({row})")
    if spilled:
        failures.append(f"{spilled} bytes of registers spilled, expected 0")
    return failures


def main() -> int:
    """Run the check, print and write the results, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="check only one GPU, two channel counts and the default training step in bfloat16"
    )
    quick = parser.parse_args().quick

    gpus = GPUS[-1:] if quick else GPUS
    kernels, spilled = kernel_table(gpus, (48, 256) if quick else CHANNEL_COUNTS)
    console.print(kernels)
    rows = [byte_ratios(op, dtype) for op in (("norm_pool",) if quick else OPERATIONS) for dtype in DTYPES]
    console.print(bytes_table(rows))
    step_rows = []
    for row, compiled in compiled_steps(quick):
        step_rows.append(row)
        spilled += sum(kernel.spill_bytes for kernel in compiled.kernels)
    console.print(step_table(step_rows))
    sent_rows = list(sent_bytes(quick))
    console.print(sent_table(sent_rows))

    max_ratios = {direction: max(row["ratio"][direction] for row in rows if row["op"] == "norm_pool") for direction in LIMITS}
    failures = find_failures(max_ratios, step_rows, sent_rows, spilled)
    for failure in failures:
        log(failure)
    result = {"spill_bytes": spilled, "norm_pool_bytes_ratio": max_ratios, "bytes": rows, "steps": step_rows, "sent": sent_rows}
    result["jax"] = jax.__version__
    print(json.dumps(result))
    if not quick:
        write_json(RESULT, result)
    return bool(failures)


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
