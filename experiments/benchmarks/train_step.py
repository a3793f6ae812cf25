"""The paper's network trained on this machine's CPU: ours on one device and on two, and PyTorch's.

    make bench

Forward, backward and update in float32, on random images that lie in memory. Every contestant runs in a process of its own,
rounds alternate, and medians are told: two cores of a shared machine are never twice as fast. All keep the memory they have
got (`devices.retain_freed_memory`), which helps PyTorch as much as us. The last line is one JSON object; `experiments/results/bench.json`
has it, too.
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
CONTESTANTS = ("one device", "two devices", "PyTorch", "PyTorch, channels last")
ROUNDS = 3
SECONDS = 8.0  # that a contestant steps for in a round
RESULT = Path(__file__).parents[1] / "results" / "bench.json"


def measure(step: Callable[[], Any], batch: int) -> dict[str, float]:
    """Images/s of a step that waits for its end, what the first one takes longer, and the memory of the process."""
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    step()
    seconds: list[float] = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    rate = batch / statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"images_per_second": rate, "compile_seconds": first - batch / rate, "memory_gb": peak}


def ours(devices: int, batch: int) -> dict[str, float]:
    import jax

    from alexnet_jax.model.alexnet import TWO_TOWER
    from alexnet_jax.parallel.mesh import choose_mesh, replicated
    from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
    from alexnet_jax.training.optimizer import paper_update
    from alexnet_jax.training.step import constant_hparams, initial_state, make_train_step, put_batch, random_batch

    mesh = choose_mesh(TWO_TOWER, "split" if devices == 2 else "single", devices)
    optimizer = paper_update()
    state = initial_state(TWO_TOWER, mesh, optimizer, 0)
    step = make_train_step(TWO_TOWER, mesh, optimizer, seed=0)
    size = TWO_TOWER.input_size
    everywhere = replicated(mesh)
    hparams = jax.device_put(constant_hparams(state, 1e-4), everywhere)
    mean = jax.device_put(jax.numpy.full((size, size, 3), 128.0), everywhere)
    images = put_batch(random_batch(batch, size), mesh)

    def take() -> None:
        nonlocal state
        state, measured = step(state, images, mean, hparams)
        jax.block_until_ready((state, measured))

    found = measure(take, batch)
    share = found["images_per_second"] * training_flops_per_image(TWO_TOWER) / measure_matmul_flops(mesh, "float32")
    return {**found, "matmul_fraction": share}


def pytorch(channels_last: bool, batch: int) -> dict[str, float]:
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


def run(contestant: str, batch: int) -> dict[str, float]:
    if contestant.startswith("PyTorch"):
        return pytorch(contestant != "PyTorch", batch)
    return ours(2 if contestant == "two devices" else 1, batch)


def alternated() -> dict[int, dict[str, dict[str, float]]]:
    """Medians over the rounds, by batch and contestant."""
    found: dict[int, dict[str, list[dict[str, float]]]] = {batch: {name: [] for name in CONTESTANTS} for batch in BATCHES}
    for number in range(1, ROUNDS + 1):
        for batch, contestants in found.items():
            for name, rounds in contestants.items():
                command = [sys.executable, __file__, name, str(batch)]
                said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                rounds.append(json.loads(said.splitlines()[-1]))
                rate = rounds[-1]["images_per_second"]
                print(f"round {number}/{ROUNDS}, batch {batch}, {name}: {rate:.1f} images/s", flush=True)

    def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
        return {key: round(statistics.median(each[key] for each in rounds), 3) for key in rounds[0]}

    return {batch: {name: medians(rounds) for name, rounds in contestants.items()} for batch, contestants in found.items()}


def ratios(contestants: dict[str, dict[str, float]]) -> dict[str, float]:
    one, two, *others = (contestants[name]["images_per_second"] for name in CONTESTANTS)
    return {"ratio_vs_pytorch": round(one / max(others), 3), "two_device_ratio": round(two / one, 3)}


def main() -> None:
    batches = alternated()
    compared = {batch: ratios(contestants) for batch, contestants in batches.items()}
    said = subprocess.run(
        [sys.executable, __file__, "layers", str(BATCHES[0])], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    print(said.rsplit("\n", 2)[0])
    import jax
    import torch  # type: ignore[reportMissingImports]

    result = {
        "network": "two_tower",
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "pytorch": torch.__version__.split("+")[0],
        "batches": {str(batch): {**contestants, **compared[batch]} for batch, contestants in batches.items()},
        "layers": json.loads(said.splitlines()[-1]),
        # The smaller of the two batches' is the ratio to go by.
        "ratio_vs_pytorch": min(each["ratio_vs_pytorch"] for each in compared.values()),
        "two_device_ratio": min(each["two_device_ratio"] for each in compared.values()),
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
