"""Tests of the tables in README.md and docs/, which are generated from committed results and published errors."""

import json
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def experiments_on_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")


def test_tables_are_up_to_date():
    result_tables = import_module("result_tables")
    text = "".join(file.read_text() for file in result_tables.PAGES)
    assert result_tables.fill_tables(text) == text, "run `make readme`"
    assert all(text.count(f"<!-- {name} -->") == 1 for name in result_tables.TABLES), "each table is in one file"


def test_missing_results_are_dashes(tmp_path, monkeypatch):
    tables = import_module("paper_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for make in tables.TABLES.values():
        header, _, *rows = make().splitlines()
        assert all(row.count(" | ") == header.count(" | ") for row in rows)
        assert all(row.endswith(" — |") for row in rows)
    assert "| 1 CNN | 40.7% | 18.2% | — | 40.66% | 18.21% | — | — |" in tables.table_2()


def test_tables_contain_our_results(tmp_path, monkeypatch):
    tables = import_module("paper_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def errors(of, views, top1):
        return {"name": of, "views": views, "top1_error": top1, "top5_error": top1 / 2}

    def write(name, **content):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    write("ilsvrc2010", errors=[errors("runs/a", "center", 0.4), errors("runs/a", "ten", 0.38)])
    assert "| CNN | 37.5% | 17.0% | 37.47% | 17.00% | 38.00% | 19.00% |" in tables.table_1()
    assert "| CNN, center view (footnote 5) | 39.0% | 18.3% | 39.02% | 18.30% | 40.00% | 20.00% |" in tables.table_1()

    names = ("runs/a", "runs/b", "mean", "weighted by validation")
    five = [errors(name, "ten", 0.36 - place / 100) for place, name in enumerate(names)]
    write("ilsvrc2012_five", errors=five)
    assert "| 5 CNNs | 38.1% | 16.4% | 16.4% | — | — | 34.00% | 17.00% |" in tables.table_2(), "unweighted mean"

    def views(ten):
        return {"center": {"top1_error": 0.4, "top5_error": 0.2}, "ten": {"top1_error": ten, "top5_error": ten / 2}}

    write("photos", runs={"source_145": {"epochs": 12, "test": views(0.35)}})
    assert "| `source_145` | 12 | 40.0% | 20.0% | 35.0% | 17.5% |" in tables.clothing()

    differences = {"top1": {"delta": 0.02, "low": 0.01, "high": 0.03}, "top5": {"delta": -0.001, "low": None, "high": None}}
    study = {"base": "source_145", "data": "photos", "epochs": 12, "seeds": [0, 1]}
    write("ablations_photos", ablations={"no_lrn": differences, "tanh": differences}, **study)
    text = tables.ablations()
    assert "ours: `source_145` on photos, 12 epochs, 2 seeds, top-1 | top-5 |" in text
    assert "| response normalization | 3.3 | +1.4 | +1.2 | +1.37 | +1.15 | +2.00 (+1.00 to +3.00) | -0.10 |" in text
    assert "| `tanh` |  | — | — | — | — | +2.00 (+1.00 to +3.00) | -0.10 |" in text
    assert "| dropout | 4.2 | substantial overfitting | — | — | — | — | — |" in text

    (tmp_path / "baselines").mkdir()
    splits = {"mean_class_accuracy": [0.7, 0.72], "top1_error": [0.3, 0.28], "top5_error": [0.1, 0.1]}
    write("baselines/caltech101-30-fisher_vectors", **splits)
    write("baselines/clothing-sparse_coding", top1_error=[0.25], top5_error=[0.02])
    text = tables.baselines()
    assert "classes | 73.4% (Wang et al. 2010) | 77.8% (Chatfield et al. 2011) | — | — | — |" in text
    assert "| ours, squares of 256 pixels: mean accuracy of the classes | — | 71.0% ± 1.4 | — | — | — |" in text
    assert "| photos of clothes, 3,068 to train on: top-5 error | 2.0% | — | — | — | 17.5% |" in text

    figure = {"relu": {"epochs_to_25_percent": 5.0}, "tanh": {"epochs_to_25_percent": 21.0}, "tanh_by_relu": 4.2}
    write("cifar_figure1", **figure)
    write("cifar_lrn", epochs=12, seeds=[0], test_error={"with": [0.25, 0.26], "without": [0.27]}, difference=None)
    text = tables.cifar()
    assert "| 6 | 4.2 (21.0 and 5.0 epochs, one seed) |" in text
    assert "with response normalization | 11% | 25.00% |" in text, "only complete pairs"
    assert "| difference, points | +2 | — |" in text


def test_benchmark_is_compared_with_the_fastest_baseline(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    train_step, tables = import_module("train_step"), import_module("benchmark_tables")

    def turns(seconds, memory):
        return [{"step_seconds": value, "first_seconds": 5.0, "memory_gb": memory} for value in seconds]

    ours = turns([1.0, 3.0, 2.0], 3.0)  # the machine was slower in the last two rounds
    baselines = {
        "PyTorch": turns([1.5, 3.3, 3.0], 1.0),
        "PyTorch, compiled": turns([1.2, 3.5, 2.4], 2.0),
        "plain Flax": turns([0.9], 1.0),
    }
    rounds = {"one device": ours, "two devices": turns([2.0, 6.0, 4.0], 1.0), **baselines}
    results = {name: train_step.summary(32, values, ours) for name, values in rounds.items()}
    assert results["PyTorch, compiled"]["ratio_to_one_device"] == round(1 / 1.2, 3)
    compared = train_step.comparison(results)
    assert compared == {
        "fastest_baseline": "PyTorch, compiled",  # plain Flax took part in one round only
        "ratio_vs_best": 1.2,
        "memory_ratio_vs_best": 1.5,
        "two_device_ratio": 0.5,
    }

    monkeypatch.setattr(import_module("paper_tables"), "RESULTS", tmp_path)
    (tmp_path / "bench.json").write_text(json.dumps({"cores": 2, "batches": {"32": {**results, **compared}}}))
    text = tables.bench()
    assert "| PyTorch, compiled | 13.3 | 3.8 | 2.0 |" in text
    assert "| speedup of one device over the fastest of the others | **1.20** |  |  |" in text
    assert "| memory relative to that one |  |  | **1.50** |" in text


def test_failing_baselines_are_left_out_and_slow_ones_take_one_turn(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    train_step, turns, closed = import_module("train_step"), [], []

    class Worker:
        def __init__(self, program, name, batch):
            if name in train_step.COMPILED_PYTORCH:
                raise RuntimeError("no C++ compiler")
            self.name = name

        def turn(self, seconds):
            if self.name == fails_in_turn:
                raise RuntimeError("out of memory")
            turns.append(self.name)
            return {"step_seconds": 3.0 if self.name == "PyTorch" else 1.0, "first_seconds": 5.0, "memory_gb": 1.0}

        def close(self):
            closed.append(self.name)

    monkeypatch.setattr(train_step, "Worker", Worker)
    monkeypatch.setattr(train_step, "FINALISTS", 2)
    fails_in_turn = None
    left_out = {}
    results = train_step.measure(32, left_out)
    assert left_out == dict.fromkeys(train_step.COMPILED_PYTORCH, "no C++ compiler")
    rounds = {name: values["rounds"] for name, values in results.items()}
    assert {name: turns.count(name) for name in set(turns)} == {**rounds, "PyTorch": 2}, "a slow first turn is repeated"
    finalists = ["one device", "two devices", "PyTorch, channels last", "plain Flax"]
    assert all(results[name]["rounds"] == (train_step.ROUNDS if name in finalists else 1) for name in results)
    assert sorted(closed) == sorted(results), "all processes end"

    fails_in_turn = "PyTorch"
    results = train_step.measure(32, left_out)
    assert left_out["PyTorch"] == "out of memory"
    assert set(results) == set(finalists)


def test_workers_take_turns_and_report_their_errors(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    Worker = import_module("turns").Worker
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, turns\nturns.serve(lambda: None if sys.argv[1] == 'good' else 1 / 0, lambda: {'answer': 42})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "experiments" / "benchmarks"))
    worker = Worker(str(program), "good")
    first, second = worker.turn(0.0), worker.turn(0.01)
    assert first["answer"] == second["answer"] == 42
    assert first["first_seconds"] == second["first_seconds"]
    worker.close()
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        Worker(str(program), "bad")
