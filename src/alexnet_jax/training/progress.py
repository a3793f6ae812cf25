"""What a person sees while a network trains."""

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

from rich.progress import BarColumn, Progress, TextColumn

from alexnet_jax.console import console

EVERY = 30.0
"""Seconds between lines where there is no terminal to redraw one on."""


Item = TypeVar("Item")


class TimedIterator(Generic[Item]):
    """An iterator that knows how long it was waited for."""

    def __init__(self, items: Iterator[Item]):
        self._items = items
        self._first: float | None = None
        self._seconds = 0.0

    def __iter__(self) -> "TimedIterator[Item]":
        return self

    def __next__(self) -> Item:
        began = time.monotonic()
        item = next(self._items)
        if self._first is None:
            self._first = time.monotonic()  # the first is prepared while nobody could use it: it counts nowhere
        else:
            self._seconds += time.monotonic() - began
        return item

    @property
    def share(self) -> float:
        """Of the time since the first item, the part that was spent waiting for the others."""
        return self._seconds / max(time.monotonic() - self._first, 1e-9) if self._first is not None else 0.0


class TrainingProgress:
    """A line with epoch, step, loss, images/s and time left, redrawn in place; on a file, a line now and then."""

    def __init__(self, *, start: int, steps: int, steps_per_epoch: int, batch_size: int):
        self._start, self._steps, self._steps_per_epoch, self._batch_size = start, steps, steps_per_epoch, batch_size
        self._step = start
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), console=console, transient=True
        )
        self._task = self._bar.add_task("starting", total=steps, completed=start, text="compiling")
        self._seconds = 0.0  # of training: without compilation and evaluation
        self._timed_steps = 0
        self._since: float | None = None
        self._printed = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._bar.stop()

    @property
    def images_per_second(self) -> float:
        """Mean since the start, or since the run went on; 0 until two steps are done."""
        return self._timed_steps * self._batch_size / self._seconds if self._seconds else 0.0

    def pause(self) -> None:
        """The time until the next step is not training's."""
        self._since = None

    def advance(self, step: int, loss: float) -> None:
        """Tells that a step is done."""
        now = time.monotonic()
        if self._since is not None:
            self._seconds += now - self._since
            self._timed_steps += 1
        self._since = now
        self._step = step
        epoch = f"epoch {(step - 1) // self._steps_per_epoch + 1}/{-(-self._steps // self._steps_per_epoch)}"
        text = f"step {step}/{self._steps}  loss {loss:.3f}  {self.images_per_second:.0f} images/s  {self._time_left()}"
        self._bar.update(self._task, completed=step, description=epoch, text=text)
        if not console.is_terminal and now - self._printed > EVERY:
            self._printed = now
            console.print(f"{epoch}  {text}")

    def print(self, line: str) -> None:
        """Prints a line that stays."""
        self._printed = time.monotonic()
        console.print(line, markup=False)

    def _time_left(self) -> str:
        if not self.images_per_second:
            return ""
        seconds = (self._steps - self._step) * self._batch_size / self.images_per_second
        return f"{format_duration(seconds)} left"


def format_duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
