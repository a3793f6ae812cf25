"""Tests that notebooks match their Python files and contain no outputs; `make notebooks` also runs them."""

import json
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_each_python_file_has_a_notebook():
    assert [file.stem for file in NOTEBOOKS] == sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "make")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_has_no_outputs(file):
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), "run experiments/notebooks/make.py"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_matches_python_file(file, monkeypatch):
    pytest.importorskip("jupytext", reason="jupytext is not installed; make notebooks installs it")
    monkeypatch.syspath_prepend(FOLDER)
    assert file.read_text() == import_module("make").notebook_text(file.with_suffix(".py")), "run experiments/notebooks/make.py"
