"""SIGINT and SIGTERM handling: stop after the current step while training, exit at once otherwise."""

import os
import signal
import sys

STDERR = 2  # signal handlers write to the file descriptor, because they may interrupt a print


class StopOnSignal:
    """Context manager in which the first Ctrl-C or SIGTERM sets `requested` instead of ending the process.

    A second Ctrl-C raises KeyboardInterrupt as usual. A second SIGTERM is ignored, because `timeout` and some job managers send
    two; SIGKILL ends the process at once.

    Attributes:
      requested: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopOnSignal":
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
        if not self.requested:
            self.requested = True
            os.write(STDERR, b"Stopping after this step. Press Ctrl-C again to stop at once.\n")


def exit_on_sigterm() -> None:
    """Install a SIGTERM handler that exits with code 0; all state needed to resume is already on disk."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: object) -> None:
    os.write(STDERR, b"Stopped. Run the same command to resume.\n")
    sys.exit(0)
