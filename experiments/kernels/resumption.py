"""Check of gpu_check.py that a killed training run of the quickstart config resumes with the same command.

Training runs in subprocesses that need all dependencies of the package, whereas the other checks need only a few of them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MIN_STEP = 20
"""Minimum step of the checkpoint after which the process is killed."""


def train_kill_resume(epochs: int, seconds: float) -> dict[str, Any]:
    """Train on synthetic images, kill the process after a checkpoint, and resume.

    Args:
      epochs: number of epochs.
      seconds: time limit, in seconds.

    Returns:
      Step of the last checkpoint before the kill, step of resumption, time from resumption to the end, and fields of result.json.

    Raises:
      RuntimeError: if a process fails, ends before it is killed, or does not resume from the checkpoint.
      TimeoutError: if the time limit is reached.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = folder / "run"
        command = [
            sys.executable, "-m", "alexnet_jax", "train", "quickstart", "--epochs", str(epochs), "--checkpoint-seconds", "0.1",
            "--run", str(run),
        ]  # fmt: skip
        output = folder / "stderr"
        with _process(command, output) as process:
            while (step := _last_checkpoint(run)) < MIN_STEP:
                if process.poll() is not None:
                    raise RuntimeError(f"training ended before it could be killed: {_last_line(output)}")
                _check(deadline)
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                raise RuntimeError(f"training ended before it could be killed: {_last_line(output)}")
        start = time.monotonic()
        with _process(command, output) as process:
            while process.poll() is None:
                _check(deadline)
                time.sleep(0.05)
        resumed = re.search(r"resuming at step (\d+)", output.read_text())
        if process.returncode or resumed is None or int(resumed[1]) < step:
            raise RuntimeError(f"training did not resume (exit code {process.returncode}): {_last_line(output)}")
        result = json.loads((run / "result.json").read_text())
        kept = ("device", "epochs", "steps", "top1_error", "loss", "images_per_second")
        return {
            "killed_after_checkpoint": step,
            "resumed_at_step": int(resumed[1]),
            **{name: result[name] for name in kept},
            "seconds_after_resumption": round(time.monotonic() - start, 1),
        }


@contextmanager
def _process(command: list[str], output: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Start a process with stderr redirected to a file; kill the process on exit if it is still running."""
    # The parent process holds GPU memory, so disable preallocation of most of the memory.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _last_checkpoint(run: Path) -> int:
    """Return the step of the last complete checkpoint of a run; 0 if there is none."""
    return max((int(file.name) for file in run.glob("checkpoints/*") if file.name.isdecimal()), default=0)


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("time limit reached")


def _last_line(file: Path) -> str:
    return (file.read_text().strip().splitlines() or ["no output"])[-1]
