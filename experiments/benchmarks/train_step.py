"""Benchmark of the training step of the paper's network on the CPU: JAX on one and two devices, and PyTorch.

    make bench

A training step consists of forward pass, backward pass and parameter update in float32, on random images in memory. Every
implementation runs in its own process. Rounds alternate between the implementations, and medians are reported, because the speed
of a shared machine varies. All implementations retain freed memory (`alexnet_jax.parallel.runtime.retain_freed_memory`), which
speeds up PyTorch as much as JAX. The last line of the output is one JSON object, which is also written to
experiments/results/bench.json.
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
IMPLEMENTATIONS = ("one device", "two devices", "PyTorch", "PyTorch, channels last")
ROUNDS = 3
SECONDS = 8.0
"""Duration of one measurement, in seconds."""
RESULT = Path(__file__).parents[1] / "results" / "bench.json"


def measure(step: Callable[[], Any], batch: int) -> dict[str, float]:
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


def alexnet_jax_step(devices: int, batch: int) -> dict[str, float]:
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


def pytorch_step(channels_last: bool, batch: int) -> dict[str, float]:
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
    return measure(lambda: train_step(model, optimizer, images, labels), batch)


def run(implementation: str, batch: int) -> dict[str, float]:
    """Measure one of `IMPLEMENTATIONS` in this process."""
    if implementation.startswith("PyTorch"):
        return pytorch_step(implementation != "PyTorch", batch)
    return alexnet_jax_step(2 if implementation == "two devices" else 1, batch)


def measure_all() -> dict[int, dict[str, dict[str, float]]]:
    """Return the medians of all measurements by batch size and implementation; rounds alternate between implementations."""
    results: dict[int, dict[str, list[dict[str, float]]]] = {batch: {name: [] for name in IMPLEMENTATIONS} for batch in BATCHES}
    for number in range(1, ROUNDS + 1):
        for batch, implementations in results.items():
            for name, rounds in implementations.items():
                command = [sys.executable, __file__, name, str(batch)]
                stdout = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                rounds.append(json.loads(stdout.splitlines()[-1]))
                rate = rounds[-1]["images_per_second"]
                print(f"round {number}/{ROUNDS}, batch {batch}, {name}: {rate:.1f} images/s", flush=True)

    def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
        return {key: round(statistics.median(measured[key] for measured in rounds), 3) for key in rounds[0]}

    return {
        batch: {name: medians(rounds) for name, rounds in implementations.items()} for batch, implementations in results.items()
    }


def ratios(implementations: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the speedups of JAX on one device over the faster PyTorch layout, and on two devices over one."""
    one, two, *pytorch = (implementations[name]["images_per_second"] for name in IMPLEMENTATIONS)
    return {"ratio_vs_pytorch": round(one / max(pytorch), 3), "two_device_ratio": round(two / one, 3)}


def main() -> None:
    """Run all measurements; write and print the results."""
    batches = measure_all()
    speedups = {batch: ratios(implementations) for batch, implementations in batches.items()}
    stdout = subprocess.run(
        [sys.executable, __file__, "layers", str(BATCHES[0])], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    print(stdout.rsplit("\n", 2)[0])
    import jax
    import torch  # type: ignore[reportMissingImports]

    result = {
        "network": "two_tower",
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "pytorch": torch.__version__.split("+")[0],
        "batches": {str(batch): {**implementations, **speedups[batch]} for batch, implementations in batches.items()},
        "layers": json.loads(stdout.splitlines()[-1]),
        # Report the less favorable batch size.
        "ratio_vs_pytorch": min(speedup["ratio_vs_pytorch"] for speedup in speedups.values()),
        "two_device_ratio": min(speedup["two_device_ratio"] for speedup in speedups.values()),
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
