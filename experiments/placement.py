"""Two towers on one CPU device or on two: which trains faster here.

    make experiment EXP=placement

The quickstart's and the paper's training step, each placement in a process of its own, alternated; medians. The last line is
one JSON object.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 3
BATCHES = {"quickstart": 32, "two_tower": 32}
RESULT = Path(__file__).parent / "results" / "placement.json"


def images_per_second(name: str, placement: str) -> float:
    """Median of the training step, on random images."""
    import jax
    import numpy as np

    from alexnet_jax.architectures import NETWORKS
    from alexnet_jax.devices import Placement, choose_mesh
    from alexnet_jax.optimizer import paper_update
    from alexnet_jax.step import constant_phase, initial_state, make_train_step, put_batch, random_batch

    network, batch_size = NETWORKS[name], BATCHES[name]
    where: Placement = "split" if placement == "split" else "single"
    mesh = choose_mesh(network, where)
    optimizer = paper_update()
    state = initial_state(network, mesh, optimizer, 0)
    step = make_train_step(network, mesh, optimizer, seed=0)
    phase = constant_phase(state, 1e-4)
    size = network.input_size
    batch = put_batch(random_batch(batch_size, size), mesh)
    mean = np.full((size, size, 3), 128, np.float32)
    seconds = []
    for _ in range(12):
        began = time.perf_counter()
        state, loss = step(state, batch, mean, phase)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - began)
    return batch_size / statistics.median(seconds[2:])


def main() -> None:
    found: dict[str, dict[str, list[float]]] = {name: {"single": [], "split": []} for name in BATCHES}
    for _ in range(ROUNDS):
        for name, placements in found.items():
            for placement, rates in placements.items():
                out = subprocess.run([sys.executable, __file__, name, placement], capture_output=True, text=True, check=True)
                rates.append(float(out.stdout.splitlines()[-1]))
                print(f"{name} {placement}: {rates[-1]:.1f} images/s", flush=True)
    result = {
        name: {placement: round(statistics.median(rates), 1) for placement, rates in placements.items()}
        for name, placements in found.items()
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(images_per_second(sys.argv[1], sys.argv[2]))
    else:
        main()
