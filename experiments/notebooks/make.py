"""Makes each notebook here from the Python file beside it, which is the one to edit.

    python experiments/notebooks/make.py

A notebook is made without outputs and to the same text every time, so that `tests/test_notebooks.py` can tell whether it is up to
date.
"""

from pathlib import Path

import jupytext  # type: ignore[reportMissingImports]

FOLDER = Path(__file__).parent


def made(file: Path) -> str:
    """The text of the notebook that a Python file in jupytext's percent format stands for."""
    notebook = jupytext.read(file)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # otherwise drawn at random
    return jupytext.writes(notebook, fmt="ipynb") + "\n"


def sources() -> list[Path]:
    """The Python files that are notebooks."""
    return sorted(file for file in FOLDER.glob("*.py") if file != Path(__file__))


if __name__ == "__main__":
    for source in sources():
        source.with_suffix(".ipynb").write_text(made(source))
