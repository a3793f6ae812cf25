"""Check that a training run killed and resumed many times is bit-identical to an uninterrupted run.

    make experiment EXP=benchmarks/kill_and_resume
    make experiment EXP=benchmarks/kill_and_resume ARGS="--kills 4"

Trains a config, by default the quickstart, on a few hundred synthetic images, with a checkpoint every 0.3 seconds so that many
signals arrive during a save. There are three runs: uninterrupted; killed with SIGKILL at random times during startup, training
steps, validation and saves; and stopped with SIGTERM, after which the process must save, exit with status 0 and print how to
resume. An interrupted run is resumed with the same command until it is finished. Parameters, optimizer state, log and result are
compared. The last line of the output is one JSON object.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.sources.synthetic import SyntheticSource
from alexnet_jax.errors import check_at_least
from alexnet_jax.files import write_json
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import initial_state, state_shardings
from alexnet_jax.weights.trained_model import load_run_config

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parents[1] / "results" / "kill.json"
SPEED = ("images_per_second", "matmul_fraction")
"""Fields of the log that depend on timing, excluded from the comparison."""


@dataclass(frozen=True)
class Kill:
    """Kill and resume a training run repeatedly, and compare it with an uninterrupted run.

    Attributes:
      kills: number of interruptions by each signal.
      epochs: number of epochs per run, of 10 steps each.
      config: name or file of the config.
      seed: random seed of the times of the signals.
      out: JSON file for the result.
    """

    kills: int = 20
    epochs: int = 60
    config: str = "quickstart"
    seed: int = 0
    out: Path = RESULT

    def __post_init__(self) -> None:
        check_at_least(self, kills=1, epochs=3, seed=0)


class SmallSyntheticSource(SyntheticSource):
    """Synthetic source with 320 training and 160 validation images."""

    num_images = {"train": 320, "validation": 160}  # noqa: RUF012 (an attribute of Source)


class Trial:
    """Training run, in its own folder, that can be killed and resumed.

    Args:
      folder: folder that contains the data set, the compilation cache and the run folder.
      name: name of the run folder.
      config: name or file of the config.
      epochs: number of epochs.
    """

    def __init__(self, folder: Path, name: str, config: str, epochs: int):
        self.run = folder / name
        # Use a separate compilation cache, because a kill may interrupt a write to it.
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
        self._command = [
            sys.executable, "-m", "alexnet_jax", "train", config, "--epochs", str(epochs), "--checkpoint-seconds", "0.3",
            "--data", str(folder / "images"), "--run", str(self.run),
        ]  # fmt: skip

    @property
    def finished(self) -> bool:
        """Whether the training is finished."""
        return (self.run / "result.json").is_file()

    @property
    def logged_step(self) -> int:
        """Last step in the log, or 0 if there is none; an incomplete last line is ignored."""
        file = self.run / "log.jsonl"
        return max(map(int, re.findall(r'^{"step": (\d+),', file.read_text(), re.MULTILINE)), default=0) if file.exists() else 0

    @property
    def checkpoint_step(self) -> int:
        """Step of the latest checkpoint, or 0 if there is none."""
        return max((int(file.name) for file in self.run.glob("checkpoints/*") if file.name.isdecimal()), default=0)

    def start(self) -> "subprocess.Popen[str]":
        """Start or resume the training in a new process."""
        return subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> float:
        """Run the training until it is finished, and return the elapsed time in seconds."""
        start = time.monotonic()
        process = self.start()
        _, stderr = process.communicate()
        if process.returncode or not self.finished:
            raise SystemExit(f"{self.run.name} exited with {process.returncode} and printed:\n{stderr}")
        return time.monotonic() - start

    def kill(self, signum: signal.Signals, step: int, delay: float) -> str | None:
        """Start or resume the training and send it a signal.

        Args:
          signum: signal to send.
          step: step to wait for in the log.
          delay: seconds to wait after that step is logged.

        Returns:
          The interrupted activity: "starting", "training" or "saving". None if the training finished before the signal was sent,
          which can happen on a busy machine.
        """
        process = self.start()
        while self.logged_step < step and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        while signum == signal.SIGTERM and process.poll() is None and not _handles_signal(process.pid, signum):
            time.sleep(0.01)  # the Python interpreter is still starting
        saving = any(self.run.glob("checkpoints/*tmp*"))
        process.send_signal(signum)
        _, stderr = process.communicate()
        if self.finished:
            return None
        if process.returncode != (-signum if signum == signal.SIGKILL else 0) or "Traceback" in stderr:
            raise SystemExit(f"after {signum.name}, {self.run.name} exited with {process.returncode} and printed:\n{stderr}")
        if signum == signal.SIGTERM and "same command" not in stderr:
            raise SystemExit(f"after {signum.name}, {self.run.name} did not print how to resume, but:\n{stderr}")
        if "mesh:" not in stderr:  # an incomplete checkpoint is from an earlier kill
            return "starting"
        return "saving" if saving else "training"


def _handles_signal(pid: int, signum: int) -> bool:
    """Return whether a process has installed a handler for a signal; True on systems without /proc."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return True
    caught = re.search(r"^SigCgt:\s+(\w+)$", status.read_text(), re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> (signum - 1) & 1)


def state(run: Path) -> list[np.ndarray[Any, Any]]:
    """Return the arrays of the parameters and the optimizer state in the last checkpoint of a run."""
    config = load_run_config(run)
    network = config.network
    mesh = make_mesh(network, jax.devices()[:1], split_towers=False)
    like = jax.eval_shape(lambda: initial_state(network, mesh, paper_update(), 0))
    shardings = state_shardings(mesh, like)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)
    restored = Checkpoints(run / "checkpoints", config.to_json()).restore(like)
    assert restored is not None
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored[0])]


def log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of the log of a run, without the fields that depend on time."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in SPEED} for line in lines]


def compare(run: Path, reference: Path) -> dict[str, bool]:
    """Return whether the final state, the log and the result of two runs are identical."""
    pairs = zip(state(run), state(reference), strict=True)
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, reference)]
    fields = ("steps", "epochs", "best", "top1_error", "top5_error", "loss")
    return {
        "state_identical": all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs),
        "log_identical": log(run) == log(reference),
        "result_identical": all(results[0][name] == results[1][name] for name in fields),
    }


def kill_and_resume(settings: Kill, folder: Path) -> dict[str, Any]:
    """Interrupt runs with both signals, and return their comparisons with an uninterrupted run, by signal name.

    Args:
      settings: numbers of signals and epochs, and the random seed.
      folder: empty folder for the data set and the runs.
    """
    prepare(SmallSyntheticSource(), folder / "images")
    trial = partial(Trial, folder, config=settings.config)
    trial("warm-up", epochs=1).finish()  # fills the compilation cache
    one_epoch = trial("one-epoch", epochs=1).finish()
    reference = trial("reference", epochs=settings.epochs)
    seconds = reference.finish()
    print(f"{one_epoch:.1f} s for 1 epoch, {seconds:.1f} s for {settings.epochs}", flush=True)
    result: dict[str, Any] = {"steps": reference.checkpoint_step}
    for signum in (signal.SIGKILL, signal.SIGTERM):
        trials, rng, activities = [trial(signum.name, epochs=settings.epochs)], random.Random(settings.seed), list[str]()
        last = min(int(0.8 * reference.checkpoint_step), reference.checkpoint_step - 20)  # every tenth step is logged
        for step in sorted(rng.randrange(last) for _ in range(settings.kills)):
            # Send a third of the signals during startup, and the others at a random time in the epoch after the step.
            starting = rng.random() < 1 / 3
            delay = rng.uniform(0, one_epoch / 2 if starting else seconds / settings.epochs)
            while (activity := trials[-1].kill(signum, 0 if starting else step, delay)) is None:
                trials.append(trial(f"{signum.name}-{len(trials)}", epochs=settings.epochs))
            activities.append(activity)
            print(f"{signum.name} while {activity}: last checkpoint is step {trials[-1].checkpoint_step}", flush=True)
        trials[-1].finish()
        identical = [compare(finished.run, reference.run) for finished in trials]
        during = {activity: activities.count(activity) for activity in ("starting", "training", "saving")}
        comparison = {name: all(same[name] for same in identical) for name in identical[0]}
        result[signum.name] = {"times": len(activities), "during": during, **comparison}
    return result


def main() -> None:
    settings = tyro.cli(Kill)
    with tempfile.TemporaryDirectory() as folder:
        result = kill_and_resume(settings, Path(folder))
    print(json.dumps(result))
    write_json(settings.out, result)


if __name__ == "__main__":
    with exit_on_error():
        main()
