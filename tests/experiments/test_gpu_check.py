"""Tests of gpu_check.py that a measurement that fails loses no other result."""

import json
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Return a function that runs measurements, given by name and function, and returns the report."""
    monkeypatch.syspath_prepend(FOLDER / "kernels")
    module = import_module("report")
    file = tmp_path / "gpu.json"

    def run(measurements, **options):
        report = module.Report(file, device="GPU")
        plan = [module.Measurement("part", name, lambda f=function: f(report)) for name, function in measurements.items()]
        module.run_measurements(plan, report, module.TimeBudget(module.time.monotonic() - module.START + 60), **options)
        return json.loads(file.read_text())

    return run


def passes(report):
    report.add("rows", {"spec": "a"}, value=1)


def fails(report):
    raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS\nfurther lines")


def skips(report):
    raise import_module("report").Skipped("PyTorch is missing")


def test_other_measurements_run_after_a_failure(check):
    result = check({"a": fails, "b": skips, "c": passes})
    assert result["rows"] == [{"spec": "a", "value": 1}]
    (failure,) = result["failed"]
    assert (failure["name"], failure["reason"]) == ("part a", "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS")
    assert result["skipped"] == [{"name": "part b", "reason": "PyTorch is missing"}]
    assert result["running"] is None


def test_measurements_are_skipped_if_the_device_cannot_be_used_any_more(check):
    result = check({"a": passes, "b": fails, "c": passes, "d": passes}, device_error=lambda: "illegal address")
    assert len(result["failed"]) == 1
    assert [each["name"] for each in result["skipped"]] == ["part c", "part d"]
    assert "the device failed in part b (illegal address)" in result["skipped"][0]["reason"]
    assert result["rows"] == [{"spec": "a", "value": 1}]


def test_report_names_the_measurement_in_which_the_process_was_killed(check, tmp_path):
    during = []
    check({"a": lambda _: during.append(json.loads((tmp_path / "gpu.json").read_text())["running"])})
    assert during == ["part a"]
