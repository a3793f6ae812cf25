"""The terminal. Messages go to stderr; stdout is for results that another program may read."""

from collections.abc import Generator, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")

console = Console(stderr=True, soft_wrap=True, highlight=False)


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} {self._unit}/s")


def track_progress(items: Iterable[Item], doing: str, total: int, unit: str = "images") -> Generator[Item, None, None]:
    """The items, with a bar, their rate and the time left on a terminal, and one line elsewhere. Closing it ends the bar."""
    if not console.is_terminal:
        console.print(f"{doing}: {total:,} {unit}")
        yield from items
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total)
