"""The terminal. Messages go to stderr; stdout is for results that another program may read."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")

console = Console(stderr=True, soft_wrap=True, highlight=False)


def tracked(items: Iterable[Item], doing: str, total: int) -> Iterable[Item]:
    """The items, with a bar and the time left on a terminal, and one line elsewhere."""
    if console.is_terminal:
        return track(items, doing, total=total, console=console, transient=True)
    console.print(f"{doing}: {total:,} images")
    return items
