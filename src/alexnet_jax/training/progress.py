"""Training progress bar, and measurement of the time that training waits for data."""

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_INTERVAL_S = 30.0
"""Seconds between progress lines if the output is not a terminal."""


Item = TypeVar("Item")


class TimedIterator(Generic[Item]):
    """Iterator that measures how long its consumer waits for items."""

    def __init__(self, items: Iterator[Item]):
        self._items = items
        self._first_item_time: float | None = None
        self._wait_seconds = 0.0

    def __iter__(self) -> "TimedIterator[Item]":
        return self

    def __next__(self) -> Item:
        start = time.monotonic()
        item = next(self._items)
        if self._first_item_time is None:
            self._first_item_time = time.monotonic()  # exclude the first item, whose time includes the pipeline's startup
        else:
            self._wait_seconds += time.monotonic() - start
        return item

    @property
    def wait_fraction(self) -> float:
        """Fraction of the time since the first item that was spent waiting for later items."""
        if self._first_item_time is None:
            return 0.0
        return self._wait_seconds / max(time.monotonic() - self._first_item_time, 1e-9)


class TrainingProgress:
    """Progress bar with epoch, step, loss, images/s and remaining time; without a terminal, one line every 30 seconds.

    Args:
      console: console to print to.
      start: number of steps completed before this run started or resumed.
      steps: total number of training steps.
      steps_per_epoch: number of steps of an epoch.
      batch_size: images per step.
    """

    def __init__(self, console: Console, *, start: int, steps: int, steps_per_epoch: int, batch_size: int):
        self._console, self._step, self._batch_size = console, start, batch_size
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), console=console, transient=True
        )
        self._task = self._bar.add_task("starting", total=steps, completed=start, text="compiling")
        self._train_seconds = 0.0  # excludes compilation and validation
        self._timed_steps = 0
        self._last_step_time: float | None = None
        self._last_line_time = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    @property
    def images_per_second(self) -> float:
        """Mean training throughput since this run started or resumed, images per second; 0 until two steps are completed."""
        return self._timed_steps * self._batch_size / self._train_seconds if self._train_seconds else 0.0

    def pause(self) -> None:
        """Pause the throughput timer."""
        self._last_step_time = None

    def resume(self, step: int) -> None:
        """Resume the throughput timer, if it is paused, after a step was started, which is not counted: it may have compiled."""
        if self._last_step_time is None:
            self._step, self._last_step_time = step, time.monotonic()

    def advance(self, step: int, loss: float) -> None:
        """Update the progress bar after one or more steps: with the last one, counted from 1, and the loss of its batch."""
        now = time.monotonic()
        if self._last_step_time is not None:
            self._train_seconds += now - self._last_step_time
            self._timed_steps += step - self._step
        self._step, self._last_step_time = step, now
        epoch = f"epoch {(step - 1) // self._steps_per_epoch + 1}/{-(-self._steps // self._steps_per_epoch)}"
        text = f"step {step}/{self._steps}  loss {loss:.3f}{self._speed()}"
        self._bar.update(self._task, completed=step, description=epoch, text=text)
        if not self._console.is_terminal and now - self._last_line_time > LINE_INTERVAL_S:
            self._last_line_time = now
            self._console.print(f"{epoch}  {text}")

    def print(self, line: str) -> None:
        """Print a line above the progress bar."""
        self._last_line_time = time.monotonic()
        self._console.print(line, markup=False)

    def _speed(self) -> str:
        """Return throughput and remaining time; nothing before a step is timed."""
        if not self.images_per_second:
            return ""
        seconds = (self._steps - self._step) * self._batch_size / self.images_per_second
        return f"  {self.images_per_second:.0f} images/s  {format_duration(seconds)} left"


def format_duration(seconds: float) -> str:
    """Format a duration in seconds as H:MM:SS, or as M:SS if it is shorter than an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
