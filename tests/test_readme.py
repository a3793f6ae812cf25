"""Test that the commands of the README's first section work as written."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import process_environment

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_quick_start(photos, tmp_path):
    """Run the first code block in a folder that has links to the repository, so that the results are not written there."""
    if subprocess.run(["make", "--question", ".venv/installed"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("needs an up-to-date .venv: run make setup")  # or the commands would install into it from another folder
    for name in ("Makefile", "pyproject.toml", ".venv", "src", "kernels"):
        (tmp_path / name).symlink_to(ROOT / name)
    section = (ROOT / "README.md").read_text().split("## Quick start")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block is not None
    commands = [line.partition("#")[0].strip() for line in block[1].splitlines()]
    assert [command.split()[:2] for command in commands if command.startswith("alexnet-jax")] == [
        ["alexnet-jax", "predict"], ["alexnet-jax", "index"], ["alexnet-jax", "retrieve"],
    ]  # fmt: skip
    photo, environment, outputs = photos / "validation" / "above" / "0.jpg", process_environment(), {}
    run = "RUN"
    for command in commands:
        line = command.replace("path/to/photos", str(photos)).replace("photo.jpg", str(photo)).replace("RUN", run)
        script = f". .venv/bin/activate && {line}"
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        outputs[command.split()[1]] = done.stdout.splitlines()
        if command.startswith("make train"):
            *_, folder, report = done.stdout.splitlines()
            assert report == f"{folder}/report.html"
            assert (tmp_path / report).is_file()
            run = folder
    assert [line.split("\t")[3] for line in outputs["retrieve"]] == ["above"] * 6
    assert any(str(photo) in line and "above" in line and "%" in line for line in outputs["predict"])
