"""Benchmark of the overhead of the training loop over the training step.

    make experiment EXP=benchmarks/training_loop
    make experiment EXP=benchmarks/training_loop ARGS="--data path/to/photos --rounds 5"

The loop is that of `train`, with data loading, logging, progress display and checkpoints, timed until the last checkpoint is on
disk; every epoch counts as the best so far. Validation is excluded, because it has its own step. The speed of a shared machine
changes within seconds, so the loop is paused several times in a round, and the training step is timed alone, on one batch that is
already on the devices, and so are matrix products. The ratio is the median over rounds of the loop's throughput divided by the
step's. The last line of the output is one JSON object.

    make experiment EXP=benchmarks/training_loop ARGS=--host

With --host, the step is replaced by a function that returns at once, to measure what the loop itself costs per step: the time of
its thread, which the device would wait for, the CPU time of all threads, and the bytes that cross to and from the devices.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import tyro
from jax.sharding import Mesh

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.configs import load_config
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.pipeline.augment import Example
from alexnet_jax.data.pipeline.batches import training_batches
from alexnet_jax.errors import UserError, check_at_least
from alexnet_jax.files import write_json
from alexnet_jax.parallel.mesh import replicated
from alexnet_jax.parallel.runtime import bind_threads, configure_cpu, enable_compilation_cache
from alexnet_jax.training import loop
from alexnet_jax.training.config import Options
from alexnet_jax.training.confusion import Confusions
from alexnet_jax.training.flops import measure_matmul_flops, training_flops_per_image
from alexnet_jax.training.metrics import EvalMetrics, Validation
from alexnet_jax.training.setup import TrainContext, setup
from alexnet_jax.training.step import TrainMetrics, constant_hparams, for_precision, initial_state, put_batch

RESULT = Path(__file__).parents[1] / "results" / "loop.json"
STEPS = {"quickstart": 2500, "two_tower": 100, "cifar_four_layers": 600}
"""Default minimum number of steps per round and config, rounded up to whole epochs.

The first epoch decodes the images, and later epochs read them from memory, as in every training run. These are all epochs of
quickstart.
"""
BATCH = {"cifar_four_layers": 128}
"""Batch size by config, instead of 32."""
TURNS, MIN_TURN = 16, 40
"""Number of turns in a round, and minimum number of steps in a turn."""
LOADED = 12
"""Maximum number of batches that are loaded ahead: those of `Prefetcher` and of Grain."""


@dataclass(frozen=True)
class Bench:
    """Measure the throughput of the training step alone and of the training loop.

    Attributes:
      data: folder of images, a prepared data set, or a name in data/; None uses the synthetic images.
      rounds: number of rounds.
      steps: minimum number of steps per round; None uses the default of each config.
      configs: names of the configs to measure.
      host: measure the cost of the loop on the host with a step that does nothing, and write no file.
      out: JSON file for the result.
    """

    data: str | None = None
    rounds: int = 3
    steps: int | None = None
    configs: tuple[str, ...] = tuple(STEPS)
    host: bool = False
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, rounds=1, steps=2)


class Turns:
    """Value of `should_stop` that pauses the loop and times the training step alone, in turns.

    Args:
      context: training run.

    Attributes:
      loop: steps and seconds of the loop, without the steps after a pause whose batches were loaded during the pause.
      step: steps and seconds of the step alone.
      matmul: FLOP/s of matrix products in each turn.
    """

    def __init__(self, context: TrainContext):
        if context.steps < MIN_TURN:
            raise UserError(f"the training has {context.steps} steps: pass --steps {MIN_TURN} or more")
        config = context.config
        state = for_precision(initial_state(context.network, context.mesh, context.optimizer, config.seed), config.precision)
        hparams = jax.device_put(constant_hparams(state, config.learning_rate), replicated(context.mesh))
        batches = training_batches(
            context.dataset,
            config.augmentation,
            input_size=context.network.input_size,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        batch = put_batch(next(batches), context.mesh)
        self._context, self._state, self._arguments = context, state, (batch, context.mean, hparams)
        self._length = max(MIN_TURN, context.steps // TURNS)
        self._position, self._start = 0, 0.0  # number of steps of the turn, and time after the first `LOADED` of them
        self.loop, self.step, self.matmul = np.zeros(2), np.zeros(2), list[float]()
        self._run_steps(1)

    def __call__(self) -> bool:
        """Time the step if a turn of the loop ends, and return False."""
        self._position += 1
        if self._position == LOADED:
            self._start = time.perf_counter()
        if self._position == self._length:
            self.end_turn()
            time.sleep(0.1)  # until the loader has filled its buffers
            self._run_steps(1)
            start = time.perf_counter()
            self._run_steps(self._length - LOADED)
            self.step += self._length - LOADED, time.perf_counter() - start
            self.matmul.append(measure_matmul_flops.__wrapped__(self._context.mesh, self._context.config.precision))
        return False

    def end_turn(self) -> None:
        """Add the steps since the start of the turn, and their time, to those of the loop."""
        if self._position > LOADED:
            self.loop += self._position - LOADED, time.perf_counter() - self._start
        self._position = 0

    def _run_steps(self, number: int) -> None:
        previous = None
        for _ in range(number):
            self._state, metrics = self._context.train_step(self._state, *self._arguments)
            jax.block_until_ready(previous)  # metrics are read one step late, as in the loop
            previous = metrics
        jax.block_until_ready(self._state)


def measure(context: TrainContext) -> dict[str, float]:
    """Measure a training run.

    Returns:
      "step" and "loop": throughput of the training step alone and of the loop, images/s; "ratio": loop divided by step;
      "matmul_fraction": FLOP/s of the training step alone divided by those of matrix products.
    """
    turns = Turns(context)
    with mock.patch.object(loop, "validate", return_value=_validation(context)):
        loop.run_loop(context, turns)
    turns.end_turn()
    step, whole = (context.config.batch_size * steps / seconds for steps, seconds in (turns.step, turns.loop))
    step_flops = step * training_flops_per_image(context.network)
    return {
        "step": step,
        "loop": whole,
        "ratio": whole / step,
        "matmul_fraction": step_flops / statistics.median(turns.matmul),
    }


def host_cost(context: TrainContext) -> dict[str, float]:
    """Return the cost of a step of the loop with a step that returns at once, without checkpoints and validation.

    Returns:
      "loop_ms": CPU milliseconds of the thread of the loop; "process_ms": CPU milliseconds of all threads; "to_device" and
      "from_device": bytes that cross to and from all devices; each per step, in the second half of the steps.
    """
    metrics = jax.device_put(TrainMetrics(np.float32(1.0), np.float32(0.5)), replicated(context.mesh))
    measured: list[np.ndarray] = []
    to_device = from_device = 0

    def put(batch: Example, mesh: Mesh) -> Example:
        nonlocal to_device
        arrays = put_batch(batch, mesh)
        to_device = sum(shard.data.nbytes for array in jax.tree.leaves(arrays) for shard in array.addressable_shards)
        return arrays

    def get(values: Any) -> Any:
        nonlocal from_device
        from_device += sum(value.nbytes for value in jax.tree.leaves(values))
        return device_get(values)

    def should_stop() -> bool:
        measured.append(np.array([time.thread_time(), time.process_time(), from_device]))
        return False

    device_get, stubbed = jax.device_get, replace(context, train_step=lambda state, *_: (state, metrics))
    with (
        mock.patch.object(loop, "validate", return_value=_validation(context)),
        mock.patch.object(loop.Checkpoints, "save"),
        mock.patch.object(loop, "put_batch", put),
        mock.patch.object(loop, "READ_INTERVAL_S", 0.0),  # read after every step, as if steps took longer
        mock.patch.object(jax, "device_get", get),
    ):
        loop.run_loop(stubbed, should_stop)
    half = len(measured) // 2
    thread, process, received = ((measured[-1] - measured[half]) / (len(measured) - 1 - half)).tolist()
    return {"loop_ms": 1e3 * thread, "process_ms": 1e3 * process, "to_device": to_device, "from_device": received}


def _validation(context: TrainContext) -> Validation:
    return Validation(EvalMetrics(0.5, 0.5, 1.0, 2), Confusions.from_matrix(np.eye(context.network.num_classes, dtype=int)))


def contexts(name: str, bench: Bench, folder: Path) -> Iterator[TrainContext]:
    """Yield the training run of each round."""
    config = replace(load_config(name), batch_size=BATCH.get(name, 32))
    options = Options(data=bench.data or "synthetic")
    dataset = find_dataset(options.data, "", options.data_dir)
    steps_per_epoch = dataset.manifest.splits["train"] // config.batch_size
    epochs = -(-(bench.steps or STEPS[name]) // steps_per_epoch)
    for number in range(bench.rounds):
        context = setup(name, replace(config, epochs=epochs), replace(options, run=folder / f"{Path(name).stem}-{number}"))
        with closing(context.run):
            yield context


def main() -> None:
    """Run all measurements; write and print the results."""
    bench = tyro.cli(Bench)
    enable_compilation_cache()
    configure_cpu()
    bind_threads()  # as `train` does
    if bench.host:
        with tempfile.TemporaryDirectory() as folder:
            rows = {name: [host_cost(context) for context in contexts(name, bench, Path(folder))] for name in bench.configs}
        print(json.dumps({name: jax.tree.map(lambda *v: round(statistics.median(v), 3), *rows[name]) for name in rows}))
        return
    result: dict[str, dict[str, float]] = {}
    for name in bench.configs:
        rounds: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as folder:
            for context in contexts(name, bench, Path(folder)):
                rounds.append(measure(context))
                print(f"{name}: " + ", ".join(f"{key} {value:.5g}" for key, value in rounds[-1].items()), flush=True)
        result[name] = {key: float(f"{statistics.median(r[key] for r in rounds):.4g}") for key in rounds[0]}
        result[name]["batch"] = BATCH.get(name, 32)
    print(json.dumps(result))
    write_json(bench.out, result)


if __name__ == "__main__":
    with exit_on_error():
        main()
