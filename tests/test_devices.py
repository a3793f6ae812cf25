"""Tests that the test suite runs on four CPU devices, regardless of the default devices of the machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.conftest import process_environment

ROOT = Path(__file__).parents[1]


def test_suite_runs_on_four_cpu_devices():
    assert [device.platform for device in jax.devices()] == ["cpu"] * 4


@pytest.mark.slow
def test_suite_runs_where_jax_offers_one_device_by_default(tmp_path):
    """Simulate a machine with one GPU: a plugin limits `jax.devices()` to one device until a platform is selected."""
    (tmp_path / "one_device.py").write_text(
        "import jax\n"
        "devices = jax.devices\n"
        "def stub(backend=None):\n"
        "    chosen = backend or jax.config.jax_platforms\n"
        "    return devices(backend) if chosen else devices(backend)[:1]\n"
        "jax.config.update('jax_platforms', None)\n"
        "jax.devices = stub\n"
    )
    environment = process_environment(platform=None)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "one_device", "-p", "no:xdist", "-p", "no:cacheprovider", "-q"]
    # test_step.py takes the devices for two towers when it is imported.
    tests = ["tests/test_devices.py::test_suite_runs_on_four_cpu_devices", "tests/training/test_step.py"]
    command += ["-k", "four_cpu_devices or nan_in_any_layer"]
    done = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"\d+ passed, \d+ deselected in .*", done.stdout.splitlines()[-1]), done.stdout  # none skipped
