"""Tests of what all programs in experiments/ have in common."""

import ast
import re
import runpy
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


@pytest.mark.parametrize(("settings", "message"), [({"seeds": ()}, "--seeds has no value"), ({"images": 0}, "--images must be")])
def test_impossible_numbers_are_refused_at_the_start(settings, message, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    with pytest.raises(UserError, match=message):
        import_module("transfer").Transfer(**settings)


def test_all_programs_check_their_numbers():
    baselines = ("baselines/fisher_vectors.py", "baselines/sparse_coding.py")  # settings of the method
    for name, text in PROGRAMS.items():
        options = re.search(r'@dataclass\(frozen=True\)\nclass \w+:\n    """(.|\n)*?\n\n(?=\S)', text)
        has_numbers = options is not None and re.search(r": (int|tuple\[int)\b.* = ", options[0])
        assert not has_numbers or "check_" in text or name in ("ablate.py", *baselines), name


@pytest.mark.parametrize("name", ["train_step", "data_pipeline"])
def test_benchmarks_need_pytorch_before_they_measure(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "benchmarks")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(FOLDER / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert error.value.code == 1
