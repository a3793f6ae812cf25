"""Tests of the Makefile's variables, with a program that prints its arguments as the Python of the environment."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STRANGE = 'it\'s a $(pwd) "folder"; $HOME \\ & *'


@pytest.fixture
def make(tmp_path):
    """Return a function that runs make with a target and variables."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    for name in ("installed", "installed-baselines"):
        (tmp_path / name).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def run(*arguments):
        command = ["make", "--no-print-directory", f"VENV={tmp_path}", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("target", "names"),
    [("train", ("EXP", "DATA")), ("figures", ("RUN",)), ("baselines", ("DATA",))],
    ids=["train", "figures", "baselines"],
)
def test_variable_is_one_argument_whatever_its_characters(make, target, names):
    done = make(target, *(f"{name}={STRANGE}" for name in names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(STRANGE) == (2 if target == "baselines" else len(names))


@pytest.mark.parametrize("name", ["quickstart", "ablate.py", "", "it's"])
def test_unknown_experiment_is_refused(make, name):
    done = make("experiment", f"EXP={name}")
    assert done.returncode == 2
    assert done.stdout.startswith("name a study of experiments/README.md without .py: make experiment EXP=")
    assert make("experiment", "EXP=ablate", "ARGS=--no-lrn").stdout == "experiments/ablate.py\n--no-lrn\n"
