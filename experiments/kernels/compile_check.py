"""Compiles every kernel, and whole training steps, for GPUs that are not there: does it compile, fit, and save memory traffic?

make kernel-check                      everything: three GPUs, six widths, two types
make kernel-check ARGS=--quick         one GPU, two widths, one step: what .ci/run has time for

The last line is one JSON object. The exit status is 1 if a kernel does not compile or spills registers, or if norm_pool
moves more bytes, relative to XLA's own form of it, than `LIMITS` allow. Nothing runs, so it sees neither races nor speed.
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
from alexnet_kernels.specs import CHANNELS, OPERATIONS, Spec, first_layer

GPUS = ("a100", "l4", "h100")
DTYPES = (jnp.float32, jnp.bfloat16)
OURS = re.compile("|".join(OPERATIONS))
LIMITS = {"forward": 0.45, "backward": 0.12}
"""Bytes that norm_pool moves for each byte of XLA's form, at most."""
BATCH = 128
RESULT = Path(__file__).parents[1] / "results" / "kernel_check.json"

console = Console(width=130)
report = partial(print, file=sys.stderr, flush=True)


def forward(spec: Spec, implementation: Any, x):
    return getattr(alexnet_kernels, spec.op)(x, implementation=implementation, **spec.settings)


def forward_and_backward(spec: Spec, implementation: Any, x, g):
    y, vjp = jax.vjp(partial(forward, spec, implementation), x)
    return y, vjp(g)[0]


def arguments(spec: Spec, dtype: Any) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes of what goes in and of the gradient that comes back."""
    x = jax.ShapeDtypeStruct(spec.shape, dtype)
    return x, jax.eval_shape(partial(forward, spec, "reference"), x)


def compile_kernels(gpu: str, dtype: Any, channels: int) -> list[deviceless.Kernel]:
    """All our kernels for one width."""
    specs = [first_layer(op, channels=channels) for op in OPERATIONS]

    def all_of_them(x, *gs):
        return [forward_and_backward(spec, "triton", x, g) for spec, g in zip(specs, gs, strict=True)]

    x, gs = arguments(specs[0], dtype)[0], [arguments(spec, dtype)[1] for spec in specs]
    return deviceless.compile_for(gpu, jax.jit(all_of_them), x, *gs, ours=OURS).kernels


def kernel_table(gpus: tuple[str, ...], widths: tuple[int, ...]) -> tuple[Table, int]:
    """Registers, spills and shared memory of every kernel, and the sum of the spills."""
    found: dict[tuple[str, str, str], list[deviceless.Kernel]] = defaultdict(list)
    jobs = [(gpu, dtype, width) for gpu in gpus for dtype in DTYPES for width in widths]
    started = time.monotonic()
    for done, (gpu, dtype, width) in enumerate(jobs):
        kernels = compile_kernels(gpu, dtype, width)
        if len(kernels) != 2 * len(OPERATIONS):
            sys.exit(f"{gpu}, {width} channels: expected {2 * len(OPERATIONS)} kernels, found {[k.name for k in kernels]}")
        for kernel in kernels:
            found[kernel.name, jnp.dtype(dtype).name, gpu].append(kernel)
        left = (time.monotonic() - started) / (done + 1) * (len(jobs) - done - 1)
        print(
            f"{done + 1}/{len(jobs)} {gpu} {jnp.dtype(dtype).name} {width} channels, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
    table = Table("kernel", "type", "GPU", "registers", "spilled bytes", "shared bytes", title=f"channels: {widths}")
    for (name, dtype, gpu), kernels in sorted(found.items()):
        registers = sorted(kernel.registers for kernel in kernels)
        spilled, shared = (max(sizes) for sizes in zip(*((k.spill_bytes, k.shared_bytes) for k in kernels), strict=True))
        table.add_row(name, dtype, gpu, f"{registers[0]}-{registers[-1]}", str(spilled), str(shared))
    return table, sum(kernel.spill_bytes for kernels in found.values() for kernel in kernels)


def byte_ratios(op: str, dtype: Any) -> dict[str, Any]:
    """Megabytes moved by our kernels and by XLA's form, derived by XLA itself; "backward" is what the gradient adds."""
    spec = first_layer(op)
    x, g = arguments(spec, dtype)
    moved = {}
    for implementation in ("triton", "reference"):
        one, both = (
            deviceless.compile_for("h100", jax.jit(partial(function, spec, implementation)), *inputs, ours=OURS).moved
            for function, inputs in ((forward, (x,)), (forward_and_backward, (x, g)))
        )
        moved[implementation] = {"forward": one, "backward": both - one}
    return {
        "op": op,
        "dtype": jnp.dtype(dtype).name,
        "megabytes": {name: {way: round(n / 1e6) for way, n in ways.items()} for name, ways in moved.items()},
        "ratio": {way: round(moved["triton"][way] / moved["reference"][way], 3) for way in ("forward", "backward")},
    }


def bytes_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("operation", "type", "way", "XLA's form, MB", "kernel, MB", "ratio", title="[256, 55, 55, 96] on h100")
    for row in rows:
        for way in ("forward", "backward"):
            megabytes = [str(row["megabytes"][name][way]) for name in ("reference", "triton")]
            table.add_row(row["op"], row["dtype"], way, *megabytes, f"{row['ratio'][way]:.3f}")
    return table


def compile_step(gpu: str, precision: Any, implementation: Any) -> deviceless.Compiled:
    """The whole training step of the two towers on one device."""
    mesh = make_mesh(TWO_TOWER, [deviceless.device(gpu)], split_towers=False)
    optimizer = paper_update()

    def placed(tree, shardings):
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)

    with default_implementation(*implementation), deviceless.targeting(gpu):
        step = make_train_step(TWO_TOWER, mesh, optimizer, seed=0, precision=precision)
        state = jax.eval_shape(partial(initial_state, TWO_TOWER, mesh, optimizer, 0))
        state = placed(state, state_shardings(mesh, state))
        everywhere = replicated(mesh)
        hparams = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), constant_hparams(state, 0.01)
        )
        side = TWO_TOWER.input_size
        batch: Any = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)), random_batch(BATCH, side)
        )
        mean = jax.ShapeDtypeStruct((side, side, 3), jnp.float32, sharding=everywhere)
        return deviceless.compile_for(gpu, step, state, batch, mean, hparams, ours=OURS)


def step_table(gpus: tuple[str, ...], precisions: tuple[Precision, ...]) -> tuple[Table, list[dict[str, Any]], int]:
    table = Table(
        "GPU",
        "type",
        "kernels",
        "temporary MB with",
        "without",
        "moved MB with",
        "without",
        title=f"training step, batch {BATCH}",
    )
    rows, spilled = [], 0
    for gpu in gpus:
        for precision in precisions:
            ours, without = (compile_step(gpu, precision, names) for names in (("triton",), ("xla",)))
            spilled += sum(kernel.spill_bytes for kernel in ours.kernels)
            sizes = [f"{n / 1e6:.0f}" for n in (ours.temporary, without.temporary, ours.moved, without.moved)]
            table.add_row(gpu, precision, ", ".join(sorted({k.name for k in ours.kernels})), *sizes)
            rows.append({"gpu": gpu, "precision": precision, "temporary_ratio": round(ours.temporary / without.temporary, 3)})
            report(f"training step for {gpu} in {precision}")
    return table, rows, spilled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one GPU, two widths, one type of step")
    quick = parser.parse_args().quick

    gpus = GPUS[-1:] if quick else GPUS
    kernels, spilled = kernel_table(gpus, (48, 256) if quick else CHANNELS)
    console.print(kernels)
    rows = [byte_ratios(op, dtype) for op in (("norm_pool",) if quick else OPERATIONS) for dtype in DTYPES]
    console.print(bytes_table(rows))
    steps, step_rows, step_spilled = step_table(gpus, ("float32",) if quick else ("float32", "bfloat16"))
    console.print(steps)

    worst = {way: max(row["ratio"][way] for row in rows if row["op"] == "norm_pool") for way in LIMITS}
    failures = [f"{way}: {ratio} of XLA's bytes, {LIMITS[way]} allowed" for way, ratio in worst.items() if ratio > LIMITS[way]]
    if spilled + step_spilled:
        failures.append(f"{spilled + step_spilled} bytes of registers are spilled")
    for failure in failures:
        report(failure)
    result = {"spill_bytes": spilled + step_spilled, "norm_pool_bytes_ratio": worst, "bytes": rows, "steps": step_rows}
    result["jax"] = jax.__version__
    if not quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
