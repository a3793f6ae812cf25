"""Terminal output. Messages and progress bars go to stderr; stdout is reserved for results that other programs may read.

Brackets in text are printed, not read as markup, and control characters, which a class or file name may contain, are escaped.
"""

import sys
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from alexnet_jax.text import printable

Item = TypeVar("Item")


class PlainConsole(Console):
    """Console that prints strings, also those in the cells of a table, without markup and with control characters escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string like `rich.console.Console.render_str`, without markup and emoji codes."""
        options |= {"markup": False, "emoji": False}
        return super().render_str(printable(text), **options)


def make_console(*, quiet: bool = False) -> Console:
    """Return a console that writes to stderr, or, with `quiet`, nothing."""
    return PlainConsole(stderr=True, soft_wrap=True, highlight=False, quiet=quiet)


console = make_console()


def count(number: int, noun: str) -> str:
    """Return a number with the singular or plural of a noun.

    Examples:
      >>> count(1, "batch"), count(1200, "batch"), count(2, "epoch")
      ('1 batch', '1,200 batches', '2 epochs')
    """
    return f"{number:,} {noun if number == 1 else noun + 'es' if noun.endswith('tch') else noun + 's'}"


class _SpeedColumn(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{count(round(task.speed), self._unit)}/s" if task.speed else "")


def track_progress(items: Iterable[Item], description: str, total: int, unit: str = "image") -> Generator[Item, None, None]:
    """Yield the items and show progress.

    On a terminal, a progress bar shows the speed and the remaining time, and is removed when the generator is closed. Otherwise
    one line is printed at the start.
    """
    if not console.is_terminal:
        console.print(f"{description}: {count(total, unit)}", markup=False)
        yield from items
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(unit),
        TimeRemainingColumn(),
    )
    # Rich prints what is written to stdout while the bar is shown above it, on stderr: only for a terminal, not for a file.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as progress:
        yield from progress.track(items, total, description=printable(description))
