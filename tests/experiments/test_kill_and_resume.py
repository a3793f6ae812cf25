"""Test of experiments/benchmarks/kill_and_resume.py with few interruptions."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import process_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_training_is_bit_identical_to_uninterrupted(tmp_path, monkeypatch):
    environment = process_environment(shared_cache=False)
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("XLA_FLAGS", environment["XLA_FLAGS"])
    spec = importlib.util.spec_from_file_location("kill_and_resume", ROOT / "experiments" / "benchmarks" / "kill_and_resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill_and_resume", module)  # dataclasses look up the module
    spec.loader.exec_module(module)
    result = module.kill_and_resume(module.Kill(kills=2, epochs=20, config="tests/tiny_config.py"), tmp_path)
    for signal in ("SIGKILL", "SIGTERM"):
        assert result[signal]["times"] == 2
        assert result[signal]["state_identical"]
        assert result[signal]["log_identical"]
        assert result[signal]["result_identical"]
