"""Stopping when asked to: after the step under way while a network trains, at once before and after."""

import os
import signal
import sys

STDERR = 2  # written to directly: a handler may run in the middle of a print


class StopOnSignal:
    """While entered, Ctrl-C and SIGTERM set `asked` instead of ending the process.

    A second Ctrl-C ends it. A second SIGTERM changes nothing: `timeout` and some job managers send two, and who is in a hurry
    has SIGKILL.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopOnSignal":
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
        if not self.asked:
            self.asked = True
            os.write(STDERR, b"stopping after this step (Ctrl-C again to stop at once)\n")


def exit_on_sigterm() -> None:
    """From here on SIGTERM ends the process with exit code 0: all that is needed to go on is on the disk."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: object) -> None:
    os.write(STDERR, b"stopped; the same command goes on\n")
    sys.exit(0)
