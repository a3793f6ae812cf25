"""Stopping when asked to, after the step under way."""

import signal

from alexnet_jax.console import console


class Interrupt:
    """While entered, Ctrl-C and SIGTERM set `asked` instead of ending the process; a second one ends it."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        self._restore()
        console.print("stopping after this step (again to stop at once)")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
