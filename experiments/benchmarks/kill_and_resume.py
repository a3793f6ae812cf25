"""One training killed again and again, against the same training left alone: is what they end with the same, bit for bit?

    make experiment EXP=kill
    make experiment EXP=kill ARGS="--kills 4"

The quickstart's network on a few hundred drawn pictures, with checkpoints all the time, so that many kills come in the middle
of one. Once it runs in peace; once SIGKILL ends it at random moments, during start-up, steps, evaluations and saves; once
SIGTERM, after which it has to save, to exit with 0 and to say how to go on. Each time the same command goes on, until the
training is finished. Parameters, velocity, log and result are compared. The last line is one JSON object.
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
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from alexnet_jax.data.prepare.convert import prepare
from alexnet_jax.data.sources.synthetic import SyntheticSource
from alexnet_jax.model.alexnet import QUICKSTART
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import initial_state, state_shardings

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parents[2] / "results" / "kill.json"
SPEED = ("images_per_second", "matmul_fraction")
"""What a log tells of time, which is another each time."""


@dataclass(frozen=True)
class Kill:
    """Kills a training again and again and compares what it ends with.

    Attributes:
      kills: with each signal.
      epochs: of the training, 10 steps each.
      seed: of the moments.
      out: where the result goes.
    """

    kills: int = 20
    epochs: int = 60
    seed: int = 0
    out: Path = RESULT


class FewPictures(SyntheticSource):
    images = {"train": 320, "validation": 160}  # noqa: RUF012 (a Source's)


class Trial:
    """A training in a folder of its own, ended and started again."""

    def __init__(self, folder: Path, name: str, epochs: int):
        self.run = folder / name
        # Compiled programs are kept in the folder, too: a kill may come while one is written.
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
        self._command = [
            sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--epochs", str(epochs), "--checkpoint-seconds", "0.3",
            "--data", str(folder / "pictures"), "--run", str(self.run),
        ]  # fmt: skip

    @property
    def finished(self) -> bool:
        return (self.run / "result.json").is_file()

    @property
    def logged(self) -> int:
        """The last step in the log, whose last line may be cut off."""
        file = self.run / "log.jsonl"
        return max(map(int, re.findall(r'^{"step": (\d+),', file.read_text(), re.MULTILINE)), default=0) if file.exists() else 0

    @property
    def steps(self) -> int:
        """In the latest checkpoint."""
        return max((int(file.name) for file in self.run.glob("checkpoints/*") if file.name.isdecimal()), default=0)

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def to_the_end(self) -> float:
        """Lets it finish; the seconds that took."""
        began = time.monotonic()
        process = self.start()
        _, said = process.communicate()
        if process.returncode or not self.finished:
            raise SystemExit(f"{self.run.name} ended with {process.returncode}, and this:\n{said}")
        return time.monotonic() - began

    def end(self, number: signal.Signals, step: int, after: float) -> str | None:
        """Starts it, and ends it with a signal so many seconds after a step is logged.

        Returns:
          What it was doing; None if it was finished before the signal came, which a busy machine can bring about.
        """
        process = self.start()
        while self.logged < step and process.poll() is None:
            time.sleep(0.01)
        time.sleep(after)
        while number == signal.SIGTERM and process.poll() is None and not _listens(process.pid, number):
            time.sleep(0.01)  # Python itself is starting
        saving = any(self.run.glob("checkpoints/*tmp*"))
        process.send_signal(number)
        _, said = process.communicate()
        if self.finished:
            return None
        if process.returncode != (-number if number == signal.SIGKILL else 0) or "Traceback" in said:
            raise SystemExit(f"{number.name} ended it with {process.returncode}, and this:\n{said}")
        if number == signal.SIGTERM and "the same command goes on" not in said:
            raise SystemExit(f"{number.name}: it does not say how to go on:\n{said}")
        if "mesh:" not in said:  # what lies there unfinished is of the kill before
            return "starting"
        return "saving" if saving else "training"


def _listens(pid: int, number: int) -> bool:
    """Whether a process has said what to do with a signal; where that cannot be known, it has."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return True
    caught = re.search(r"^SigCgt:\s+(\w+)$", status.read_text(), re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> (number - 1) & 1)


def state(run: Path) -> list[np.ndarray[Any, Any]]:
    """Parameters and velocity of the last checkpoint of a run."""
    mesh = make_mesh(QUICKSTART, jax.devices()[:1], split_towers=False)
    like = jax.eval_shape(lambda: initial_state(QUICKSTART, mesh, paper_update(), 0))
    shardings = state_shardings(mesh, like)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)
    found = Checkpoints(run / "checkpoints", {"network": QUICKSTART.to_json()}).restore(like)
    assert found is not None
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found[0])]


def log(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in SPEED} for line in lines]


def compared(run: Path, whole: Path) -> dict[str, bool]:
    """What is the same in two runs."""
    pairs = zip(state(run), state(whole), strict=True)
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, whole)]
    decisive = ("steps", "epochs", "best", "top1_error", "top5_error", "loss")
    return {
        "state_identical": all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs),
        "log_identical": log(run) == log(whole),
        "result_identical": all(results[0][name] == results[1][name] for name in decisive),
    }


def experiment(kill: Kill, folder: Path) -> dict[str, Any]:
    """Both signals, in a folder that is there for it."""
    prepare(FewPictures(), folder / "pictures")
    Trial(folder, "first", 1).to_the_end()  # compiles
    start = Trial(folder, "second", 1).to_the_end()
    whole = Trial(folder, "whole", kill.epochs)
    seconds = whole.to_the_end()
    print(f"{start:.1f} s for 1 epoch, {seconds:.1f} s for {kill.epochs}", flush=True)
    found: dict[str, Any] = {"steps": whole.steps}
    for number in (signal.SIGKILL, signal.SIGTERM):
        trials, rng, doing = [Trial(folder, number.name, kill.epochs)], random.Random(kill.seed), list[str]()
        for step in sorted(rng.randrange(int(0.8 * whole.steps)) for _ in range(kill.kills)):
            # One in three while it starts; the others up to an epoch after the step, wherever that is.
            starting = rng.random() < 1 / 3
            after = rng.uniform(0, start / 2 if starting else seconds / kill.epochs)
            while (what := trials[-1].end(number, 0 if starting else step, after)) is None:
                trials.append(Trial(folder, f"{number.name}-{len(trials)}", kill.epochs))
            doing.append(what)
            print(f"{number.name}, {what}: step {trials[-1].steps} is saved", flush=True)
        trials[-1].to_the_end()
        same = [compared(trial.run, whole.run) for trial in trials]
        during = {what: doing.count(what) for what in ("starting", "training", "saving")}
        found[number.name] = {"times": len(doing), "during": during, **{name: all(of[name] for of in same) for name in same[0]}}
    return found


def main() -> None:
    kill = tyro.cli(Kill)
    with tempfile.TemporaryDirectory() as folder:
        found = experiment(kill, Path(folder))
    kill.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
