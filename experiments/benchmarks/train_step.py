"""Benchmark of the training step of the paper's network on the CPU: JAX on one and two devices, PyTorch, and plain Flax.

    make bench

A training step consists of forward pass, backward pass and parameter update in float32, on random images in memory. The baselines
are PyTorch, with and without `torch.compile` and in both memory layouts (`pytorch_two_tower.py`), and the network written with
operations of Flax and XLA only (`flax_alexnet.py`); tests/parity/test_benchmark_baselines.py checks that all take the same step.
A baseline that fails, such as `torch.compile` without a C++ compiler, is left out, with its error in the result.

Every implementation has a process of its own. The processes take turns of a few seconds (`turns.py`), and each ratio is the
median of the ratios of the rounds, because the speed of a shared machine varies by more than the implementations differ. The
fastest baselines take part in all rounds, the others in the first. All implementations retain freed memory
(`alexnet_jax.parallel.runtime.retain_freed_memory`), which speeds up PyTorch as much as JAX. The last line of the output is one
JSON object, which is also written to experiments/results/bench.json. It ends with the ratio of our images per second on one
device to those of the fastest baseline.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro
from turns import Turn, Worker, serve

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import UserError
from alexnet_jax.files import write_json

BATCHES = (32, 128)
OURS = ("one device", "two devices")
PYTORCH = ("PyTorch", "PyTorch, channels last")
COMPILED_PYTORCH = ("PyTorch, compiled", "PyTorch, compiled, channels last")
FLAX = "plain Flax"
BASELINES = (*COMPILED_PYTORCH, *PYTORCH, FLAX)
FINALISTS = 3
"""Number of baselines that take part in all rounds."""
SLOW = 0.5
"""Fraction of the highest rate, below which the first turn of a baseline is repeated."""
ROUNDS = 9
SECONDS = 5.0
"""Duration of a turn, in seconds; at least two steps."""
RESULT = Path(__file__).parents[1] / "results" / "bench.json"

Step = Callable[[], Any]
"""Function that runs one training step and waits until it is complete."""
Results = dict[str, dict[str, Any]]
"""Results at one batch size, by implementation."""


def alexnet_jax_step(devices: int, batch: int) -> tuple[Step, Callable[[], Turn]]:
    """Return the training step of alexnet_jax on one or two CPU devices, and a measurement of the rate of matrix products."""
    from random_training import random_training

    from alexnet_jax.model.alexnet import TWO_TOWER
    from alexnet_jax.parallel.mesh import choose_mesh
    from alexnet_jax.parallel.runtime import configure_cpu
    from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image

    configure_cpu(devices, data_parallel=False)
    mesh = choose_mesh(TWO_TOWER, "split" if devices == 2 else "single", devices)
    step = random_training(TWO_TOWER, mesh, batch)
    # The rate of images that would take the time of matrix products of the same number of operations.
    return step, lambda: {"matmul_rate": measure_matmul_flops(mesh, "float32") / training_flops_per_image(TWO_TOWER)}


def pytorch_step(batch: int, *, channels_last: bool, compiled: bool) -> Step:
    """Return the training step of PyTorch on the CPU."""
    import torch  # type: ignore[reportMissingImports]
    from pytorch_two_tower import TwoTower, optimizer_for, train_step

    from alexnet_jax.cpus import available_cpus
    from alexnet_jax.parallel.runtime import retain_freed_memory

    retain_freed_memory(arenas=1 + available_cpus())  # as `configure_cpu` on one device
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = TwoTower().to(memory_format=layout)  # type: ignore[reportCallIssue]
    optimizer = optimizer_for(model)
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8).to(memory_format=layout)
    labels = torch.zeros(batch, dtype=torch.long)
    called = torch.compile(model) if compiled else model
    return lambda: train_step(called, optimizer, images, labels)


def flax_step(batch: int) -> Step:
    """Return the training step of the plain Flax network, with the settings of ours for the process and the compiler."""
    import jax
    from flax_alexnet import AlexNet, initial_state, make_train_step

    from alexnet_jax.parallel.runtime import compiler_options, configure_cpu
    from alexnet_jax.training.step import random_batch

    configure_cpu()
    example = random_batch(batch, 224)
    images, labels = jax.device_put((example.image, example.label))
    state, step = initial_state(AlexNet(), 224), make_train_step(compiler_options("cpu"))

    def take_step() -> None:
        nonlocal state
        state, loss = step(state, images, labels)
        jax.block_until_ready((state, loss))

    return take_step


def run(implementation: str, batch: int) -> None:
    """Take turns of one implementation in this process."""
    if implementation in OURS:
        serve(*alexnet_jax_step(1 + OURS.index(implementation), batch))
    elif implementation == FLAX:
        serve(flax_step(batch))
    else:
        channels_last, compiled = "channels last" in implementation, implementation in COMPILED_PYTORCH
        serve(pytorch_step(batch, channels_last=channels_last, compiled=compiled))


def measure(batch: int, left_out: dict[str, str]) -> Results:
    """Measure all implementations at a batch size.

    Args:
      batch: number of images per step.
      left_out: errors of the baselines that failed, by name; more are added.
    """
    workers: dict[str, Worker] = {}
    turns: dict[str, list[Turn]] = {}

    def rate(turn: Turn) -> float:
        return batch / turn["step_seconds"]

    def take_turn(name: str, number: int) -> None:
        turn = workers[name].turn(SECONDS)
        turns.setdefault(name, []).append(turn)
        print(f"round {number}/{ROUNDS}, batch {batch}, {name}: {rate(turns[name][-1]):.1f} images/s", flush=True)

    try:
        for name in (*OURS, *BASELINES):
            if name in left_out:
                continue
            try:
                workers[name] = Worker(__file__, name, str(batch))
                take_turn(name, 1)
                if rate(turns[name][0]) < SLOW * max(rate(each[0]) for each in turns.values()):
                    take_turn(name, 1)  # on a shared machine, one turn can be many times too slow
                    turns[name] = [min(turns[name], key=lambda turn: turn["step_seconds"])]
            except RuntimeError as error:
                if name in OURS:
                    raise
                left_out[name] = str(error)
                workers.pop(name, None)
                turns.pop(name, None)
                print(f"{name} is left out: {error}", flush=True)
            baselines = sorted(workers.keys() & set(BASELINES), key=lambda name: rate(turns[name][0]))
            for slowest in baselines[:-FINALISTS]:  # at once, to free its memory
                workers.pop(slowest).close()
        for number in range(2, ROUNDS + 1):
            for name in sorted(workers, reverse=bool(number % 2)):
                take_turn(name, number)
    finally:
        for worker in workers.values():
            worker.close()
    return {name: summary(batch, turns[name], turns[OURS[0]]) for name in turns}


def summary(batch: int, turns: list[Turn], reference: list[Turn]) -> dict[str, Any]:
    """Summarize the turns of an implementation.

    Args:
      batch: number of images per step.
      turns: turns of the implementation.
      reference: turns of ours on one device, at least as many.

    Returns:
      Medians of the images per second and of their ratio to those of the reference in the same round; the seconds of the first
      step beyond those of the fastest turn, of which most are compilation; peak memory of the process in GB; and, for ours, the
      fraction of the rate of matrix products.
    """
    seconds = [turn["step_seconds"] for turn in turns]
    result = {
        "images_per_second": round(batch / statistics.median(seconds), 2),
        "ratio_to_one_device": round(
            statistics.median(r["step_seconds"] / s for r, s in zip(reference, seconds, strict=False)), 3
        ),
        "compile_seconds": round(turns[0]["first_seconds"] - min(seconds), 1),
        "memory_gb": round(max(turn["memory_gb"] for turn in turns), 2),
        "rounds": len(turns),
    }
    if "matmul_rate" in turns[0]:
        fractions = [batch / turn["step_seconds"] / turn["matmul_rate"] for turn in turns]
        result["matmul_fraction"] = round(statistics.median(fractions), 3)
    return result


def comparison(results: Results) -> dict[str, Any]:
    """Compare ours with the fastest baseline, and two devices with one.

    Args:
      results: results at one batch size.

    Returns:
      Ratios of images per second, the name of the fastest baseline, and the ratio of our peak memory to that baseline's.
    """
    one, two = OURS
    rounds = max(results[name]["rounds"] for name in results if name in BASELINES)
    finalists = [name for name in results if name in BASELINES and results[name]["rounds"] == rounds]
    best = max(finalists, key=lambda name: results[name]["ratio_to_one_device"])
    return {
        "two_device_ratio": results[two]["ratio_to_one_device"],
        "fastest_baseline": best,
        "memory_ratio_vs_best": round(results[one]["memory_gb"] / results[best]["memory_gb"], 3),
        "ratio_vs_best": round(1 / results[best]["ratio_to_one_device"], 3),
    }


def main() -> None:
    """Run all measurements; write and print the results."""
    if find_spec("torch") is None:
        raise UserError("PyTorch is not installed: run make bench, which installs it")
    left_out: dict[str, str] = {}
    batches = {batch: measure(batch, left_out) for batch in BATCHES}
    comparisons = {batch: comparison(results) for batch, results in batches.items()}
    layers = subprocess.run([sys.executable, __file__, "layers", str(BATCHES[0])], stdout=subprocess.PIPE, text=True, check=True)
    print(layers.stdout.rsplit("\n", 2)[0])
    import jax
    import torch  # type: ignore[reportMissingImports]

    result = {
        "network": "two_tower",
        "cores": available_cpus(),
        "jax": jax.__version__,
        "pytorch": torch.__version__.split("+")[0],
        "batches": {str(batch): {**results, **comparisons[batch]} for batch, results in batches.items()},
        "left_out": left_out,
        "layers": json.loads(layers.stdout.splitlines()[-1]),
        # Report the less favorable batch size.
        "two_device_ratio": min(compared["two_device_ratio"] for compared in comparisons.values()),
        "memory_ratio_vs_best": max(compared["memory_ratio_vs_best"] for compared in comparisons.values()),
        "ratio_vs_best": min(compared["ratio_vs_best"] for compared in comparisons.values()),
    }
    print(json.dumps(result))
    write_json(RESULT, result)


if __name__ == "__main__":
    with exit_on_error():
        if len(sys.argv) == 3 and sys.argv[1] == "layers":
            from layer_times import layer_times

            print(json.dumps(layer_times(int(sys.argv[2]))))
        elif len(sys.argv) == 3:
            run(sys.argv[1], int(sys.argv[2]))
        else:
            tyro.cli(main, description=__doc__)
