"""Benchmark of training steps with XLA's threads bound to CPUs, and placed by the operating system, on a virtual machine.

    make experiment EXP=benchmarks/bound_threads

Linux can keep threads that wait for each other on one virtual CPU while another is idle. Two processes train the quickstart, one
with `bind_threads`, with one device or two. They take turns, and the result has the deciles of the step times of all turns,
because a median hides what happens in some of them. The last line of the output is one JSON object, which is also written to
experiments/results/bound_threads.json.
"""

import json
import statistics
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import tyro
from random_training import random_training
from turns import Worker, serve

from alexnet_jax import QUICKSTART
from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.console import track_progress
from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import check_at_least
from alexnet_jax.files import write_json
from alexnet_jax.parallel.mesh import choose_mesh
from alexnet_jax.parallel.runtime import bind_threads, configure_cpu

RESULT = Path(__file__).parents[1] / "results" / "bound_threads.json"
BATCH = 32


@dataclass(frozen=True)
class Bench:
    """Time training steps with and without bound threads.

    Attributes:
      turns: number of turns of each process.
      seconds: length of a turn.
      out: JSON file for the result.
    """

    turns: int = 8
    seconds: float = 6.0
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, turns=2, seconds=0)


def train(devices: int, bound: bool) -> None:
    """Run training steps in turns."""
    configure_cpu(devices, data_parallel=False)
    mesh = choose_mesh(QUICKSTART, "auto" if devices > 1 else "single", devices)
    if bound:
        bind_threads()
    serve(random_training(QUICKSTART, mesh, BATCH))


def compare(devices: int, bench: Bench) -> dict[str, list[float]]:
    """Return the deciles of the step times in milliseconds, by placement of the threads."""
    with (
        closing(Worker(__file__, "--train", str(devices), "bound")) as bound,
        closing(Worker(__file__, "--train", str(devices), "free")) as free,
    ):
        workers = {"bound": bound, "free": free}
        milliseconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in track_progress(range(bench.turns), f"Devices: {devices}", bench.turns, unit="turn"):
            for name, worker in workers.items():
                milliseconds[name].append(1e3 * worker.turn(bench.seconds)["step_seconds"])
    return {name: [round(time, 1) for time in statistics.quantiles(times, n=10)] for name, times in milliseconds.items()}


def main() -> None:
    """Run all measurements; write and print the result."""
    bench = tyro.cli(Bench)
    deciles = {devices: compare(devices, bench) for devices in (1, 2)}
    result = {"cpus": available_cpus(), "batch": BATCH, "turns": bench.turns, "step_ms_deciles": deciles}
    print(json.dumps(result))
    write_json(bench.out, result)


if __name__ == "__main__":
    with exit_on_error():
        if sys.argv[1:2] == ["--train"]:
            train(int(sys.argv[2]), bound=sys.argv[3] == "bound")
        else:
            main()
