"""`experiments/benchmarks/kill_and_resume.py`, in small."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_training_that_is_killed_ends_as_one_that_is_not(tmp_path, monkeypatch):
    for name in ("XLA_FLAGS", "PJRT_NPROC"):
        monkeypatch.delenv(name, raising=False)  # set for the tests' four devices
    spec = importlib.util.spec_from_file_location("kill", ROOT / "experiments" / "benchmarks" / "kill_and_resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill", module)  # where dataclasses look
    spec.loader.exec_module(module)
    found = module.experiment(module.Kill(kills=4, epochs=20), tmp_path)
    for signal in ("SIGKILL", "SIGTERM"):
        assert found[signal]["times"] == 4
        assert found[signal]["state_identical"]
        assert found[signal]["log_identical"]
        assert found[signal]["result_identical"]
