"""Benchmark of what each setting for CPUs saves of the time of a training step.

    make experiment EXP=benchmarks/cpu_settings

Every process trains on one CPU device, with all settings or with one of them undone, on random images in memory. The processes of
a network take turns, and each value is the median over rounds of the step's time with the setting undone, divided by that with
all of them. The last line of the output is one JSON object, which is also written to experiments/results/cpu_settings.json.
"""

import json
import statistics
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

import jax
import tyro
from random_training import random_training
from turns import Worker, serve

from alexnet_jax import NETWORKS, Network
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.console import track_progress
from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import check_at_least
from alexnet_jax.files import write_json
from alexnet_jax.model.cifar import CIFAR_NETWORKS
from alexnet_jax.model.lowering import tower_lowering
from alexnet_jax.parallel import runtime
from alexnet_jax.parallel.mesh import choose_mesh
from alexnet_jax.training import step as step_module
from alexnet_kernels.xla import winograd

RESULT = Path(__file__).parents[1] / "results" / "cpu_settings.json"
BATCHES = {"two_tower": 32, "quickstart": 32, "cifar_norm": 128}
"""Networks that are measured, with their batch sizes."""

Undo = Literal["nothing", "memory", "pages", "heaps", "dispatch", "convolutions", "filtering", "vectors", "towers"]
"""Setting that is undone; `experiments/benchmark_tables.py` describes each."""


def train(network: Network, batch_size: int, undo: Undo) -> None:
    """Run training steps in turns."""
    if undo == "memory":
        runtime.retain_freed_memory = lambda arenas=1: None
    if undo == "pages":
        runtime._use_huge_pages = lambda libc: None
    if undo == "heaps":
        runtime.retain_freed_memory = partial(lambda retain, arenas: retain(1), runtime.retain_freed_memory)
    if undo == "filtering":
        winograd.tile_size = lambda *shapes: None
    runtime.configure_cpu()
    if undo == "dispatch":
        jax.config.update("jax_cpu_enable_async_dispatch", True)
    mesh = choose_mesh(network, "single", 1)
    runtime.bind_threads()
    option = {"convolutions": "xla_cpu_experimental_ynn_fusion_type", "vectors": "xla_cpu_prefer_vector_width"}.get(undo)
    options = {key: value for key, value in runtime.compiler_options("cpu").items() if key != option}
    step_module.compiler_options = lambda platform: options
    with tower_lowering("grouped" if undo == "towers" else "separate"):
        step = random_training(network, mesh, batch_size)
    serve(step)


def compare(name: str, bench: "Bench") -> dict[str, float]:
    """Return the step's time with all settings in milliseconds, and the ratios of those with one undone, by setting."""
    with ExitStack() as stack:
        workers = {undo: stack.enter_context(closing(Worker(__file__, "--train", name, undo))) for undo in get_args(Undo)}
        rounds = track_progress(range(bench.rounds), name, bench.rounds, unit="round")
        seconds = [{undo: worker.turn(bench.seconds)["step_seconds"] for undo, worker in workers.items()} for _ in rounds]
    ratios = {undo: statistics.median(times[undo] / times["nothing"] for times in seconds) for undo in workers}
    del ratios["nothing"]
    milliseconds = 1e3 * statistics.median(times["nothing"] for times in seconds)
    return {"step_ms": round(milliseconds, 1), **{undo: round(ratio, 3) for undo, ratio in ratios.items()}}


@dataclass(frozen=True)
class Bench:
    """Time training steps with each setting for CPUs undone.

    Attributes:
      rounds: number of turns of each process.
      seconds: length of a turn.
      out: JSON file for the result.
    """

    rounds: int = 7
    seconds: float = 3.0
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, rounds=1, seconds=0)


def main() -> None:
    """Run all measurements; write and print the result."""
    bench = tyro.cli(Bench)
    measured = {name: {"batch": BATCHES[name], **compare(name, bench)} for name in BATCHES}
    result = {"cpus": available_cpus(), "rounds": bench.rounds, "networks": measured}
    print(json.dumps(result))
    write_json(bench.out, result)


if __name__ == "__main__":
    with exit_on_error():
        if sys.argv[1:2] == ["--train"]:
            name, undo = sys.argv[2:]
            train((NETWORKS | CIFAR_NETWORKS)[name], BATCHES[name], cast(Undo, undo))
        else:
            main()
