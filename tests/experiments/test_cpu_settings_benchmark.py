"""Test of the benchmark of the settings for CPUs."""

from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.mark.slow
def test_step_with_an_undone_setting_is_compared(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = import_module("cpu_settings")
    monkeypatch.setattr(benchmark, "Undo", Literal["nothing", "vectors"])
    measured = benchmark.compare("quickstart", benchmark.Bench(rounds=1, seconds=0.0))
    assert set(measured) == {"step_ms", "vectors"}
    assert min(measured.values()) > 0
