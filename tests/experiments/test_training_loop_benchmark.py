"""Test of the benchmark of the training loop on a small network."""

from importlib import import_module
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def test_step_and_loop_are_timed(photos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = import_module("training_loop")
    monkeypatch.setattr(benchmark, "MIN_TURN", 4)
    monkeypatch.setattr(benchmark, "LOADED", 1)
    bench = benchmark.Bench(data=str(photos), rounds=2, steps=6)
    rounds = [benchmark.measure(context) for context in benchmark.contexts("tests/tiny_config.py", bench, tmp_path)]
    assert len(rounds) == 2
    assert all(values["ratio"] == values["loop"] / values["step"] > 0 for values in rounds)
    assert all(0 < values["matmul_fraction"] < 1 for values in rounds)
    assert len(list(tmp_path.glob("*/checkpoints/*"))) >= 2, "the loop is timed with its checkpoints"


def test_cost_on_the_host_is_that_of_every_step(photos, tmp_path, monkeypatch):
    """Each tower reads all images, and the loop reads two numbers per step."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = import_module("training_loop")
    bench = benchmark.Bench(data=str(photos), rounds=1, steps=12)
    (cost,) = (benchmark.host_cost(context) for context in benchmark.contexts("tests/tiny_config.py", bench, tmp_path))
    bytes_per_image = 29 * 29 * 3 + 4 + 3 * 4
    assert cost["from_device"] == 2 * 4
    assert 32 * bytes_per_image <= cost["to_device"] <= 2 * 4 * 32 * bytes_per_image
    assert 0 < cost["loop_ms"] <= cost["process_ms"]
