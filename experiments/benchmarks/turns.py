"""Processes that take turns: implementations of the same work, measured in alternation on a machine whose speed varies.

A `Worker` is a program that calls `serve`. It waits between its turns, so that only one of several workers runs at a time.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Turn = dict[str, float]
"""Measurements of a turn: median seconds of a step, seconds of the first step of the process, its peak resident memory in GB, and
further values of the program."""


class Worker:
    """Program that runs steps when it is told to.

    Args:
      program: Python file that calls `serve`.
      *arguments: its arguments.

    Raises:
      RuntimeError: if it fails before its first turn; the message is the last line of its first error.
    """

    def __init__(self, program: str, *arguments: str):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._first = self._read()

    def turn(self, seconds: float) -> Turn:
        """Run steps for some seconds, and return the measurements.

        Raises:
          RuntimeError: if the program fails.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return {**self._first, **self._read()}

    def close(self) -> None:
        """End the program."""
        self._process.communicate()
        self._errors.close()

    def _read(self) -> Turn:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_REPLY):
                return json.loads(line.removeprefix(_REPLY))
        code = self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read().split("\n\n")[0].splitlines()
        self.close()
        raise RuntimeError(errors[-1] if errors else f"exit code {code}")


_REPLY = "turn: "


def serve(step: Callable[[], Any], measure: Callable[[], Turn] = dict) -> None:
    """Take the first step, then a turn of at least two steps for each line of standard input with its seconds.

    Args:
      step: function that runs one step and waits until it is complete.
      measure: function that returns further values, called after each turn.
    """

    def timed_step() -> float:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    def reply(turn: Turn) -> None:
        print(_REPLY + json.dumps(turn), flush=True)

    reply({"first_seconds": timed_step()})
    for line in sys.stdin:
        step()  # fills the caches, which another worker used before
        end = time.perf_counter() + float(line)
        seconds = [timed_step(), timed_step()]
        while time.perf_counter() < end:
            seconds.append(timed_step())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        reply({"step_seconds": statistics.median(seconds), "memory_gb": peak, **measure()})
