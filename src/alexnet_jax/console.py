"""The terminal. Messages go to stderr; stdout is for results that another program may read."""

from rich.console import Console

console = Console(stderr=True, soft_wrap=True, highlight=False)
