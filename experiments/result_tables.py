"""Write the tables in README.md and docs/ from experiments/results/*.json, so that no number in them is typed by hand.

    make readme

The table NAME replaces the text between `<!-- NAME -->` and `<!-- end -->`.
"""

import re
from pathlib import Path

import benchmark_tables
import data_tables
import paper_tables
import study_tables
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.files import atomic_write

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLES = {**study_tables.TABLES, **benchmark_tables.TABLES, **data_tables.TABLES, **paper_tables.TABLES}


def fill_tables(page: str) -> str:
    """Return the text of a page with its tables regenerated."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", page)
    return page


def main() -> None:
    """Write the tables of all pages."""
    for file in PAGES:
        atomic_write(file, fill_tables(file.read_text("utf-8")).encode())


if __name__ == "__main__":
    with exit_on_error():
        tyro.cli(main, description=__doc__)
