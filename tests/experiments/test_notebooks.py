"""The notebooks are what their Python files say, and hold no outputs. `make notebooks` runs them, too."""

import json
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_is_one_for_each_python_file():
    assert [file.stem for file in NOTEBOOKS] == sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "make")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_has_no_outputs(file):
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), "run experiments/notebooks/make.py"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_what_its_python_file_says(file, monkeypatch):
    pytest.importorskip("jupytext", reason="comes with `make notebooks`")
    monkeypatch.syspath_prepend(FOLDER)
    assert file.read_text() == import_module("make").made(file.with_suffix(".py")), "run experiments/notebooks/make.py"
