"""Convert the Python files in this folder to notebooks; edit the Python files, not the notebooks.

    python experiments/notebooks/make.py

Notebooks contain no outputs, and the conversion is deterministic, so that `tests/experiments/test_notebooks.py` can check that
they are up to date.
"""

from pathlib import Path

import jupytext  # type: ignore[reportMissingImports]
import tyro

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.files import atomic_write

FOLDER = Path(__file__).parent


def notebook_text(file: Path) -> str:
    """Return the notebook, as JSON text, for a Python file in jupytext's percent format."""
    notebook = jupytext.read(file)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random by default
    return jupytext.writes(notebook, fmt="ipynb") + "\n"


def sources() -> list[Path]:
    """Return the Python files to convert."""
    return sorted(file for file in FOLDER.glob("*.py") if file != Path(__file__))


def main() -> None:
    """Convert all files."""
    for source in sources():
        atomic_write(source.with_suffix(".ipynb"), notebook_text(source).encode())


if __name__ == "__main__":
    with exit_on_error():
        tyro.cli(main, description=__doc__)
