"""SIGINT and SIGTERM handling: stop after the current step while training, exit at once otherwise."""

import os
import signal
import sys
from types import FrameType
from typing import Any

STDERR = 2  # signal handlers write to the file descriptor, because they may interrupt a print


class StopOnSignal:
    """Context manager in which the first Ctrl-C or SIGTERM requests a stop, for `should_stop` of `train`.

    Until training asks for the first time, after its first step, a signal acts as outside the context: nothing has to be saved.
    A second Ctrl-C raises KeyboardInterrupt as usual. A second SIGTERM is ignored, because `timeout` and some job managers send
    two; SIGKILL ends the process at once. Signal handlers can be set in the main thread only.

    Examples:
      >>> with StopOnSignal() as should_stop:  # result = train(..., should_stop=should_stop)
      ...     should_stop()
      False
    """

    def __init__(self) -> None:
        self._requested, self._asked = False, False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Return whether a signal has arrived."""
        self._asked = True
        return self._requested

    def __enter__(self) -> "StopOnSignal":
        self._previous |= {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
            return
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
        if not self._requested:
            self._requested = True
            os.write(STDERR, b"Stopping after this step. Press Ctrl-C again to stop at once.\n")


def exit_on_sigterm(exit_code: int = 0, advice: str = "Run the same command to resume.") -> None:
    """Install a SIGTERM handler that exits with a code; all state needed to resume is already on disk.

    Args:
      exit_code: exit code of the process.
      advice: how to resume, for the message.
    """

    def handler(number: int, frame: object) -> None:
        os.write(STDERR, f"Stopped. {advice}\n".encode())
        sys.exit(exit_code)

    signal.signal(signal.SIGTERM, handler)
