"""Benchmark of the training step of the paper's network on the CPU: JAX on one and two devices, PyTorch, and plain Flax.

    make bench

A training step consists of forward pass, backward pass and parameter update in float32, on random images in memory. The rivals
are PyTorch, with and without `torch.compile` and in both memory layouts (`pytorch_two_tower.py`), and the network written with
operations of Flax and XLA only (`flax_alexnet.py`); tests/parity/test_rivals.py checks that all take the same step. A rival that
fails, such as `torch.compile` without a C++ compiler, is left out, with its error in the result; a slow one is measured once.

Every implementation runs in its own process. Rounds alternate between the implementations, and medians are reported, because the
speed of a shared machine varies. All implementations retain freed memory (`alexnet_jax.parallel.runtime.retain_freed_memory`),
which speeds up PyTorch as much as JAX. The last line of the output is one JSON object, which is also written to
experiments/results/bench.json. It ends with the ratio of our images per second on one device to those of the fastest rival.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCHES = (32, 128)
OURS = ("one device", "two devices")
PYTORCH = ("PyTorch", "PyTorch, channels last")
COMPILED_PYTORCH = ("PyTorch, compiled", "PyTorch, compiled, channels last")
FLAX = "plain Flax"
RIVALS = (*PYTORCH, *COMPILED_PYTORCH, FLAX)
ROUNDS = 3
SECONDS = 5.0
"""Duration of one measurement, in seconds."""
SLOW = 0.4
"""Fraction of the highest throughput at a batch size, below which an implementation is not measured again."""
RESULT = Path(__file__).parents[1] / "results" / "bench.json"

Measurement = dict[str, float]
"""Result of `measure`."""


def measure(step: Callable[[], Any], batch: int) -> Measurement:
    """Measure throughput, compilation time and peak memory.

    Args:
      step: function that runs one training step and waits until it is complete.
      batch: batch size.

    Returns:
      Images per second at the median step time, the compilation time (first minus median step time) in seconds, and the peak
      resident memory of the process in GB.
    """
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    step()
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    rate = batch / statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"images_per_second": rate, "compile_seconds": first - batch / rate, "memory_gb": peak}


def alexnet_jax_step(devices: int, batch: int) -> Measurement:
    """Measure the training step of alexnet_jax on one or two CPU devices."""
    import jax

    from alexnet_jax.model.alexnet import TWO_TOWER
    from alexnet_jax.parallel.mesh import choose_mesh, replicated
    from alexnet_jax.parallel.runtime import configure_cpu
    from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
    from alexnet_jax.training.optimizer import paper_update
    from alexnet_jax.training.step import constant_hparams, initial_state, make_train_step, put_batch, random_batch

    configure_cpu(devices, data_parallel=False)
    mesh = choose_mesh(TWO_TOWER, "split" if devices == 2 else "single", devices)
    optimizer = paper_update()
    state = initial_state(TWO_TOWER, mesh, optimizer, 0)
    step = make_train_step(TWO_TOWER, mesh, optimizer, seed=0)
    size = TWO_TOWER.input_size
    replicated_sharding = replicated(mesh)
    hparams = jax.device_put(constant_hparams(state, 1e-4), replicated_sharding)
    mean = jax.device_put(jax.numpy.full((size, size, 3), 128.0), replicated_sharding)
    images = put_batch(random_batch(batch, size), mesh)

    def take_step() -> None:
        nonlocal state
        state, metrics = step(state, images, mean, hparams)
        jax.block_until_ready((state, metrics))

    measured = measure(take_step, batch)
    matmul_fraction = measured["images_per_second"] * training_flops_per_image(TWO_TOWER) / measure_matmul_flops(mesh, "float32")
    return {**measured, "matmul_fraction": matmul_fraction}


def pytorch_step(batch: int, *, channels_last: bool, compiled: bool) -> Measurement:
    """Measure the training step of PyTorch on the CPU."""
    import torch  # type: ignore[reportMissingImports]
    from pytorch_two_tower import TwoTower, optimizer_for, train_step

    from alexnet_jax.parallel.runtime import retain_freed_memory

    retain_freed_memory()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = TwoTower().to(memory_format=layout)  # type: ignore[reportCallIssue]
    optimizer = optimizer_for(model)
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8).to(memory_format=layout)
    labels = torch.zeros(batch, dtype=torch.long)
    called = torch.compile(model) if compiled else model
    return measure(lambda: train_step(called, optimizer, images, labels), batch)


def flax_step(batch: int) -> Measurement:
    """Measure the training step of the plain Flax network, with the settings of ours for the process and the compiler."""
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

    return measure(take_step, batch)


def run(implementation: str, batch: int) -> Measurement:
    """Measure one implementation in this process."""
    if implementation in OURS:
        return alexnet_jax_step(1 + OURS.index(implementation), batch)
    if implementation == FLAX:
        return flax_step(batch)
    return pytorch_step(batch, channels_last="channels last" in implementation, compiled=implementation in COMPILED_PYTORCH)


def run_in_process(*arguments: str) -> str:
    """Run this program with arguments in a new process, and return its output.

    Raises:
      RuntimeError: if it fails; the message is the last line of its error output.
    """
    process = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError((process.stderr.split("\n\n")[0].splitlines() or [f"exit code {process.returncode}"])[-1])
    return process.stdout


def measure_all() -> tuple[dict[int, dict[str, Measurement]], dict[str, str]]:
    """Measure all implementations; rounds alternate between them.

    Returns:
      Medians by batch size and implementation, and the errors of the rivals that were left out.
    """
    measured: dict[int, dict[str, list[Measurement]]] = {batch: {} for batch in BATCHES}
    left_out: dict[str, str] = {}

    def is_skipped(name: str, batch: int) -> bool:
        fastest = max((rounds[-1]["images_per_second"] for rounds in measured[batch].values()), default=0.0)
        rounds = measured[batch].get(name)
        return name in left_out or (bool(rounds) and rounds[-1]["images_per_second"] < SLOW * fastest)

    for number in range(1, ROUNDS + 1):
        for batch, implementations in measured.items():
            for name in (*OURS, *RIVALS):
                if is_skipped(name, batch):
                    continue
                try:
                    values = json.loads(run_in_process(name, str(batch)).splitlines()[-1])
                except RuntimeError as error:
                    if name in OURS:
                        raise
                    left_out[name] = str(error)
                    print(f"{name} is left out: {error}", flush=True)
                    continue
                implementations.setdefault(name, []).append(values)
                print(f"round {number}/{ROUNDS}, batch {batch}, {name}: {values['images_per_second']:.1f} images/s", flush=True)

    def medians(rounds: list[Measurement]) -> Measurement:
        return {key: round(statistics.median(values[key] for values in rounds), 3) for key in rounds[0]}

    return {
        batch: {name: medians(rounds) for name, rounds in implementations.items() if name not in left_out}
        for batch, implementations in measured.items()
    }, left_out


def comparison(implementations: dict[str, Measurement]) -> dict[str, Any]:
    """Compare JAX on one device with PyTorch without `torch.compile` and with the fastest rival, and two devices with one.

    Args:
      implementations: medians of the implementations at one batch size.

    Returns:
      Ratios of images per second, the name of the fastest rival, and the ratio of our peak memory to that rival's.
    """
    rates = {name: measured["images_per_second"] for name, measured in implementations.items()}
    one, two = (rates[name] for name in OURS)
    best = max((name for name in rates if name in RIVALS), key=rates.__getitem__)
    memory = implementations[OURS[0]]["memory_gb"] / implementations[best]["memory_gb"]
    return {
        "ratio_vs_pytorch": round(one / max(rates[name] for name in PYTORCH if name in rates), 3),
        "two_device_ratio": round(two / one, 3),
        "best_rival": best,
        "memory_ratio_vs_best": round(memory, 3),
        "ratio_vs_best": round(one / rates[best], 3),
    }


def main() -> None:
    """Run all measurements; write and print the results."""
    batches, left_out = measure_all()
    comparisons = {batch: comparison(implementations) for batch, implementations in batches.items()}
    stdout = run_in_process("layers", str(BATCHES[0]))
    print(stdout.rsplit("\n", 2)[0])
    import jax
    import torch  # type: ignore[reportMissingImports]

    result = {
        "network": "two_tower",
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "pytorch": torch.__version__.split("+")[0],
        "batches": {str(batch): {**implementations, **comparisons[batch]} for batch, implementations in batches.items()},
        "left_out": left_out,
        "layers": json.loads(stdout.splitlines()[-1]),
        # Report the less favorable batch size.
        "ratio_vs_pytorch": min(compared["ratio_vs_pytorch"] for compared in comparisons.values()),
        "two_device_ratio": min(compared["two_device_ratio"] for compared in comparisons.values()),
        "memory_ratio_vs_best": max(compared["memory_ratio_vs_best"] for compared in comparisons.values()),
        "ratio_vs_best": min(compared["ratio_vs_best"] for compared in comparisons.values()),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "layers":
        from layer_times import layer_times

        print(json.dumps(layer_times(int(sys.argv[2]))))
    elif len(sys.argv) == 3:
        print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
