"""Compile all kernels and training steps for GPUs on a machine without one, and check register use and memory traffic.

make kernel-check                      three GPUs, six channel counts, two dtypes
make kernel-check ARGS=--quick         one GPU, two channel counts, one training step; run by .ci/run

The last line of the output is one JSON object. The exit status is 1 if a kernel does not compile or spills registers, or if the
ratio of the bytes moved by norm_pool to those moved by its reference implementation exceeds `LIMITS`. Nothing is executed, so the
check cannot detect race conditions or measure speed.
"""

import toolchain

if __name__ == "__main__":
    toolchain.set_up()

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import deviceless
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import alexnet_kernels
from alexnet_jax.model.alexnet import TWO_TOWER
from alexnet_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import Precision, constant_hparams, initial_state, make_train_step, random_batch, state_shardings
from alexnet_kernels import default_implementation
from alexnet_kernels.specs import CHANNEL_COUNTS, OPERATIONS, Spec, conv1_spec

GPUS = ("a100", "l4", "h100")
DTYPES = (jnp.float32, jnp.bfloat16)
KERNEL_NAMES = re.compile("|".join(OPERATIONS))
LIMITS = {"forward": 0.45, "backward": 0.12}
"""Maximum ratio of the bytes moved by the norm_pool kernels to those moved by the reference implementation."""
BATCH = 128
RESULT = Path(__file__).parents[1] / "results" / "kernel_check.json"

console = Console(width=130)
log = partial(print, file=sys.stderr, flush=True)


def forward(spec: Spec, implementation: Any, x):
    """Apply the operation of `spec` to `x`."""
    return getattr(alexnet_kernels, spec.op)(x, implementation=implementation, **spec.settings)


def forward_and_backward(spec: Spec, implementation: Any, x, g):
    """Return the output of the operation of `spec`, and the gradient with respect to `x` for an output gradient `g`."""
    y, vjp = jax.vjp(partial(forward, spec, implementation), x)
    return y, vjp(g)[0]


def arguments(spec: Spec, dtype: Any) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return the shapes of the input and of the output gradient."""
    x = jax.ShapeDtypeStruct(spec.shape, dtype)
    return x, jax.eval_shape(partial(forward, spec, "reference"), x)


def compile_kernels(gpu: str, dtype: Any, channels: int) -> list[deviceless.Kernel]:
    """Compile the kernels of all operations for one number of channels."""
    specs = [conv1_spec(op, channels=channels) for op in OPERATIONS]

    def all_operations(x, *gs):
        return [forward_and_backward(spec, "triton", x, g) for spec, g in zip(specs, gs, strict=True)]

    x, gs = arguments(specs[0], dtype)[0], [arguments(spec, dtype)[1] for spec in specs]
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
        print(
            f"{done + 1}/{len(jobs)} {gpu} {jnp.dtype(dtype).name} {width} channels, {seconds_left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
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
    x, g = arguments(spec, dtype)
    moved = {}
    for implementation in ("triton", "reference"):
        forward_bytes, total_bytes = (
            deviceless.compile_for(
                "h100", jax.jit(partial(function, spec, implementation)), *inputs, kernel_names=KERNEL_NAMES
            ).moved
            for function, inputs in ((forward, (x,)), (forward_and_backward, (x, g)))
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


def compile_step(gpu: str, precision: Any, implementation: Any) -> deviceless.Compiled:
    """Compile the training step of the two-tower network with both towers on one GPU."""
    mesh = make_mesh(TWO_TOWER, [deviceless.device(gpu)], split_towers=False)
    optimizer = paper_update()

    def with_shardings(tree, shardings):
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)

    with default_implementation(*implementation), deviceless.targeting(gpu):
        step = make_train_step(TWO_TOWER, mesh, optimizer, seed=0, precision=precision)
        state = jax.eval_shape(partial(initial_state, TWO_TOWER, mesh, optimizer, 0))
        state = with_shardings(state, state_shardings(mesh, state))
        replicated_sharding = replicated(mesh)
        hparams = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated_sharding), constant_hparams(state, 0.01)
        )
        size = TWO_TOWER.input_size
        batch: Any = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)), random_batch(BATCH, size)
        )
        mean = jax.ShapeDtypeStruct((size, size, 3), jnp.float32, sharding=replicated_sharding)
        return deviceless.compile_for(gpu, step, state, batch, mean, hparams, kernel_names=KERNEL_NAMES)


def step_table(gpus: tuple[str, ...], precisions: tuple[Precision, ...]) -> tuple[Table, list[dict[str, Any]], int]:
    """Return a table of the training steps with and without the kernels, its rows as dicts, and the total of spilled bytes."""
    table = Table(
        "GPU",
        "precision",
        "kernels",
        "temporary MB with kernels",
        "without",
        "moved MB with kernels",
        "without",
        title=f"training step, batch {BATCH}",
    )
    rows, spilled = [], 0
    for gpu in gpus:
        for precision in precisions:
            with_kernels, without = (compile_step(gpu, precision, names) for names in (("triton",), ("xla",)))
            spilled += sum(kernel.spill_bytes for kernel in with_kernels.kernels)
            sizes = [f"{n / 1e6:.0f}" for n in (with_kernels.temporary, without.temporary, with_kernels.moved, without.moved)]
            table.add_row(gpu, precision, ", ".join(sorted({k.name for k in with_kernels.kernels})), *sizes)
            temporary_ratio = round(with_kernels.temporary / without.temporary, 3)
            rows.append({"gpu": gpu, "precision": precision, "temporary_ratio": temporary_ratio})
            log(f"compiled the training step for {gpu} in {precision}")
    return table, rows, spilled


def main() -> int:
    """Run the check, print and write the results, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="check only one GPU, two channel counts and the float32 training step"
    )
    quick = parser.parse_args().quick

    gpus = GPUS[-1:] if quick else GPUS
    kernels, spilled = kernel_table(gpus, (48, 256) if quick else CHANNEL_COUNTS)
    console.print(kernels)
    rows = [byte_ratios(op, dtype) for op in (("norm_pool",) if quick else OPERATIONS) for dtype in DTYPES]
    console.print(bytes_table(rows))
    steps, step_rows, step_spilled = step_table(gpus, ("float32",) if quick else ("float32", "bfloat16"))
    console.print(steps)

    max_ratios = {direction: max(row["ratio"][direction] for row in rows if row["op"] == "norm_pool") for direction in LIMITS}
    failures = [
        f"norm_pool {direction} moves {ratio} times the bytes of the reference, expected at most {LIMITS[direction]}"
        for direction, ratio in max_ratios.items()
        if ratio > LIMITS[direction]
    ]
    if spilled + step_spilled:
        failures.append(f"{spilled + step_spilled} bytes of registers spilled, expected 0")
    for failure in failures:
        log(failure)
    result = {"spill_bytes": spilled + step_spilled, "norm_pool_bytes_ratio": max_ratios, "bytes": rows, "steps": step_rows}
    result["jax"] = jax.__version__
    if not quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
