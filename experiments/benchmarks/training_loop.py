"""The whole loop of a training against its bare step: what do data, log, progress and checkpoints take away?

    make experiment EXP=loop
    make experiment EXP=loop ARGS="--data path/to/photos --rounds 5"

Bare is the jitted step again and again on one batch that lies on the devices; the loop is that of `train`, with a checkpoint
after every epoch, until the last one is on the disk. Evaluations are left out: they have steps of their own. Rounds of both,
alternated in one process; the share is the median over rounds of loop / bare. The last line is one JSON object.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro

from alexnet_jax.configs import load_config
from alexnet_jax.data.find import find_dataset
from alexnet_jax.parallel.runtime import enable_compilation_cache
from alexnet_jax.training.loop import Options, Training
from alexnet_jax.training.step import TrainMetrics, put_batch
from alexnet_jax.training.validation import EvalMetrics

RESULT = Path(__file__).parents[1] / "results" / "loop.json"
STEPS = {"quickstart": 1000, "two_tower": 100}
"""At least so many in a round: whole epochs. The first decodes the pictures, which then stay in memory, as in a training."""
BATCH = 32


@dataclass(frozen=True)
class Bench:
    """Images per second of the training step alone and of the loop around it.

    Attributes:
      data: folder of images, a prepared folder, or a name in data/; None is the drawn pictures.
      rounds: of both.
      steps: at least so many in a round, instead of those of each network.
      networks: experiments to time.
      out: where the result goes.
    """

    data: str | None = None
    rounds: int = 3
    steps: int | None = None
    networks: tuple[str, ...] = tuple(STEPS)
    out: Path = RESULT


class Clocked(Training):
    """A training that tells how fast it was. Its errors are made up."""

    _after_one_step: float | None = None

    def bare(self) -> float:
        """Images/s of the step alone."""
        state, batch = jax.tree.map(jnp.copy, self._state), put_batch(next(self._batches()), self._mesh)
        state, late = self._train_step(state, batch, self._mean, self._step_hparams)
        jax.block_until_ready(late)
        began = time.perf_counter()
        for _ in range(self.steps - 1):
            state, measured = self._train_step(state, batch, self._mean, self._step_hparams)
            jax.block_until_ready(late)  # one step late, as in the loop
            late = measured
        jax.block_until_ready(state)
        return (self.steps - 1) * self._config.batch_size / (time.perf_counter() - began)

    def whole(self) -> float:
        """Images/s of the loop, from the end of the first step on."""
        self.loop()
        assert self._after_one_step is not None
        return (self.steps - 1) * self._config.batch_size / (time.perf_counter() - self._after_one_step)

    def _read_measured(self, step: int, measured: TrainMetrics) -> None:
        super()._read_measured(step, measured)
        self._after_one_step = self._after_one_step or time.perf_counter()

    def _measure(self, stop: object = None) -> EvalMetrics:
        return EvalMetrics(0.5, 0.5, 1.0, 1)


def rates(name: str, bench: Bench, folder: Path) -> Iterator[tuple[float, float]]:
    """Images/s, bare and whole, of each round."""
    experiment = replace(load_config(name), batch_size=BATCH)
    options = Options(data=bench.data or "synthetic")
    dataset = find_dataset(options.data, "", options.data_dir)
    steps_per_epoch = dataset.manifest.splits["train"] // BATCH
    epochs = -(-(bench.steps or STEPS[name]) // steps_per_epoch)
    for number in range(bench.rounds):
        run = folder / f"{name}-{number}"
        training = Clocked(name, replace(experiment, epochs=epochs), replace(options, run=run))
        training.start()
        yield training.bare(), training.whole()


def main() -> None:
    bench = tyro.cli(Bench)
    enable_compilation_cache()
    found = {}
    for name in bench.networks:
        rounds = []
        with tempfile.TemporaryDirectory() as folder:
            for bare, loop in rates(name, bench, Path(folder)):
                rounds.append((bare, loop))
                print(f"{name}: bare {bare:.1f}, loop {loop:.1f} images/s, share {loop / bare:.3f}", flush=True)
        found[name] = {
            "bare": round(statistics.median(bare for bare, _ in rounds), 1),
            "loop": round(statistics.median(loop for _, loop in rounds), 1),
            "share": round(statistics.median(loop / bare for bare, loop in rounds), 3),
        }
    bench.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
