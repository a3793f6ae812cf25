"""Memory traffic and collectives of training steps, compiled for GPUs on a machine without one, for compile_check.py."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import deviceless
import jax
import jax.numpy as jnp
from collectives import bytes_sent
from rich.table import Table

from alexnet_jax.model.alexnet import TWO_TOWER
from alexnet_jax.model.lowering import Lowering, tower_lowering
from alexnet_jax.parallel.gradients import GradientSum
from alexnet_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from alexnet_jax.training.config import Precision
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import (
    constant_hparams,
    for_precision,
    initial_state,
    make_train_step,
    random_batch,
    state_shardings,
)
from alexnet_kernels import default_implementation
from alexnet_kernels.specs import OPERATIONS

GPUS = ("a100", "l4", "h100")
KERNEL_NAMES = re.compile("|".join(OPERATIONS))
BATCH = 128
EXACT = GradientSum()
FORMS = (EXACT, GradientSum("bfloat16"), GradientSum(sharded=True), GradientSum("bfloat16", sharded=True))
DEVICES = (2, 4, 8)

log = partial(print, file=sys.stderr, flush=True)


@contextmanager
def compiling(gpu: str, lowering: Lowering) -> Iterator[None]:
    """Context manager in which training steps are made and compiled for a GPU, with the kernels and a lowering."""
    with default_implementation("triton"), tower_lowering(lowering), deviceless.targeting(gpu):
        yield


def with_sharding(tree: Any, sharding: Any) -> Any:
    """Return the shapes of arrays, all with the same sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def step_on(
    gpu: str, precision: Precision, lowering: Lowering, *, devices: int = 1, gradient_sum: GradientSum = EXACT
) -> tuple[Any, tuple[Any, ...]]:
    """Return the training step of the two-tower network with both towers on every GPU, and the shapes of its arguments.

    Args:
      gpu: name of the GPU.
      precision: dtype of activations and gradients.
      lowering: form of the layers.
      devices: number of GPUs, which divide the batch.
      gradient_sum: form of the sum of gradients over them.
    """
    mesh = make_mesh(TWO_TOWER, deviceless.devices(gpu, devices), split_towers=False)
    optimizer = paper_update()

    with compiling(gpu, lowering):
        step = make_train_step(TWO_TOWER, mesh, optimizer, seed=0, precision=precision, gradient_sum=gradient_sum)
        state = jax.eval_shape(lambda: for_precision(initial_state(TWO_TOWER, mesh, optimizer, 0), precision))
    state = jax.tree.map(with_sharding, state, state_shardings(mesh, state, gradient_sum))
    size = TWO_TOWER.input_size
    mean = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    mean, hparams = with_sharding((mean, constant_hparams(state, 0.01)), replicated(mesh))
    return step, (state, with_sharding(random_batch(BATCH, size), batch_sharding(mesh)), mean, hparams)


def compile_step(gpu: str, precision: Precision, lowering: Lowering) -> deviceless.Compiled:
    """Compile the training step on one GPU; see `step_on`."""
    step, shapes = step_on(gpu, precision, lowering)
    with compiling(gpu, lowering):
        return deviceless.compile_for(gpu, step, *shapes, kernel_names=KERNEL_NAMES)


def sent_bytes(quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the megabytes that each device sends in a training step in bfloat16, for each number of devices and form of the sum.

    Args:
      quick: whether to count only the exact form and the one that differs most, for the largest number of devices.
    """
    for devices, gradient_sum in product(DEVICES[-1:] if quick else DEVICES, FORMS[:: len(FORMS) - 1] if quick else FORMS):
        step, shapes = step_on("h100", "bfloat16", "grouped", devices=devices, gradient_sum=gradient_sum)
        with compiling("h100", "grouped"):
            sent = bytes_sent(step.lower(*shapes).as_text())
        log(f"counted what {devices} devices send, gradients {gradient_sum}")
        megabytes = {kind: round(size / 1e6, 1) for kind, size in sorted(sent.items())}
        yield {"devices": devices, **asdict(gradient_sum), "sent_mb": megabytes, "total_mb": round(sum(sent.values()) / 1e6, 1)}


def sent_table(rows: list[dict[str, Any]]) -> Table:
    """Return a table of the results of `sent_bytes`."""
    table = Table(
        "devices", "gradients", "update", "collectives, MB", "sent MB", title="sent by each device in a step in bfloat16"
    )
    for row in rows:
        update = "a part per device" if row["sharded"] else "all, on every device"
        collectives = ", ".join(f"{kind} {size}" for kind, size in row["sent_mb"].items())
        table.add_row(str(row["devices"]), row["dtype"], update, collectives, str(row["total_mb"]))
    return table


def compiled_steps(quick: bool) -> Iterator[tuple[dict[str, Any], deviceless.Compiled]]:
    """Compile the training steps; yield the row of each in the JSON result, and the compiled step.

    Args:
      quick: whether to compile only the default step of one GPU in bfloat16.
    """
    for gpu in GPUS[-1:] if quick else GPUS:
        precisions: tuple[Precision, ...] = ("bfloat16",) if quick else ("float32", "bfloat16")
        lowerings: tuple[Lowering, ...] = ("grouped",) if quick else ("separate", "grouped")
        for precision, lowering in product(precisions, lowerings):
            compiled = compile_step(gpu, precision, lowering)
            log(f"compiled the training step for {gpu} in {precision}, {lowering}")
            row = {"gpu": gpu, "precision": precision, "lowering": lowering}
            row |= {"kernels": compiled.traffic.kernels, "temporary_mb": round(compiled.temporary / 1e6)}
            row |= {"moved_mb": round(compiled.traffic.moved / 1e6), "glue_mb": round(compiled.traffic.glue / 1e6, 1)}
            yield row, compiled


def step_table(rows: list[dict[str, Any]]) -> Table:
    """Return a table of the training steps."""
    columns = ("GPU", "precision", "lowering", "kernels", "temporary MB", "moved MB", "of these, glue")
    table = Table(*columns, title=f"training step, batch {BATCH}")
    for row in rows:
        *fields, glue = row.values()
        table.add_row(*map(str, fields), f"{glue} ({glue / row['moved_mb']:.1%})")
    return table
