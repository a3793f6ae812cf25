"""Tests of what all programs in experiments/ have in common."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from alexnet_jax.errors import UserError

FOLDER = Path(__file__).parents[2] / "experiments"
PROGRAMS = {
    file.relative_to(FOLDER).as_posix(): file.read_text()
    for file in sorted(FOLDER.rglob("*.py"))
    if '\nif __name__ == "__main__":' in file.read_text()
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_reports_errors_in_one_line(name):
    """Check that all work is done inside of `exit_on_error`, which prints errors and ends quietly on Ctrl-C."""
    tree = ast.parse(PROGRAMS[name])
    if name == "kernels/gpu_check.py":  # which also runs where this package is not installed, and `main` says so
        (block,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    else:
        block = [node for node in tree.body if isinstance(node, ast.If)][-1]
    last = block.body[-1]
    assert isinstance(last, ast.With)
    assert [ast.unparse(item) for item in last.items] == ["exit_on_error()"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_parses_its_arguments(name):
    """Check that --help prints the help, and an option that does not exist is refused, instead of a run of minutes."""
    parsers = ("tyro.cli(", "ArgumentParser(", "main(FisherVectors)", "main(SparseCoding)")
    assert any(parser in PROGRAMS[name] for parser in parsers)


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_written_whole_and_after_they_are_printed(name):
    """A result of hours must not be lost if the file cannot be written."""
    assert "RESULT.write_text" not in PROGRAMS[name]
    assert not re.search(r"write_json\(.*\n +print\(json.dumps\(result\)\)", PROGRAMS[name])


def test_data_without_test_images_are_refused(trained_run, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    photos = import_module("photos")
    monkeypatch.setattr(sys, "argv", ["photos.py", str(trained_run)])
    with pytest.raises(UserError, match="has no labeled test images: train on photos in train, validation and test"):
        photos.main()
