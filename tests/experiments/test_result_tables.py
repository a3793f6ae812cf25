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
    networks = [{"path": "runs/a", "network": "two_tower"}, {"path": "runs/b", "network": "source_145"}]
    write("clothing10_evaluation", networks=networks, errors=five)
    assert "| `source_145` | — | — | 35.0% | 17.5% |" in tables.clothing()
    assert "| mean of the predictions | — | — | 34.0% | 17.0% |" in tables.clothing()

    differences = {"top1": {"delta": 0.02, "low": 0.01, "high": 0.03}, "top5": {"delta": -0.001, "low": None, "high": None}}
    study = {"base": "source_145", "data": "photos", "epochs": 12, "seeds": [0, 1]}
    write("ablations_photos", ablations={"no_lrn": differences, "tanh": differences}, **study)
    text = tables.ablations()
    assert "ours: `source_145` on photos, 12 epochs, 2 seeds, top-1 | top-5 |" in text
    assert "| response normalization | 3.3 | +1.4 | +1.2 | +1.37 | +1.15 | +2.00 (+1.00 to +3.00) | -0.10 |" in text
    assert "| `tanh` |  | — | — | — | — | +2.00 (+1.00 to +3.00) | -0.10 |" in text
    assert "| dropout | 4.2 | substantial overfitting | — | — | — | — | — |" in text

    figure = {"relu": {"epochs_to_25_percent": 5.0}, "tanh": {"epochs_to_25_percent": 21.0}, "tanh_by_relu": 4.2}
    write("cifar_figure1", **figure)
    write("cifar_lrn", epochs=12, seeds=[0], test_error={"with": [0.25, 0.26], "without": [0.27]}, difference=None)
    text = tables.cifar()
    assert "| 6 | 4.2 (21.0 to 5.0, one seed) |" in text
    assert "with response normalization | 11% | 25.00% |" in text, "only complete pairs"
    assert "| difference, points | +2 | — |" in text


def test_benchmark_is_compared_with_the_fastest_rival(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    train_step, tables = import_module("train_step"), import_module("result_tables")

    def measured(rate, memory):
        return {"images_per_second": rate, "compile_seconds": 1.0, "memory_gb": memory}

    medians = {"one device": measured(22.0, 3.0), "two devices": measured(11.0, 1.0)}
    medians |= {"PyTorch": measured(16.0, 1.0), "PyTorch, compiled": measured(20.0, 2.0), "plain Flax": measured(5.0, 1.0)}
    compared = train_step.comparison(medians)
    assert compared["best_rival"] == "PyTorch, compiled"
    ratios = {name: value for name, value in compared.items() if name != "best_rival"}
    assert ratios == {"ratio_vs_best": 1.1, "memory_ratio_vs_best": 1.5, "ratio_vs_pytorch": 1.375, "two_device_ratio": 0.5}

    monkeypatch.setattr(import_module("paper_tables"), "RESULTS", tmp_path)
    (tmp_path / "bench.json").write_text(json.dumps({"cores": 2, "batches": {"32": {**medians, **compared}}}))
    text = tables.bench()
    assert "| PyTorch, compiled | 20.0 | 1.0 | 2.0 |" in text
    assert "| speedup of one device over the fastest of the others | **1.10** |  |  |" in text
    assert "| memory relative to that one |  |  | **1.50** |" in text


def test_failing_rivals_of_the_benchmark_are_left_out_and_slow_ones_are_measured_once(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    train_step, calls = import_module("train_step"), []

    def run_in_process(name, batch):
        calls.append(name)
        if "compiled" in name:
            raise RuntimeError("no C++ compiler")
        return json.dumps({"images_per_second": 3.0 if name == "plain Flax" else 10.0 + len(calls)})

    monkeypatch.setattr(train_step, "run_in_process", run_in_process)
    results, left_out = train_step.measure_all()
    assert left_out == dict.fromkeys(train_step.COMPILED_PYTORCH, "no C++ compiler")
    assert all(set(medians) == {*train_step.OURS, *train_step.PYTORCH, train_step.FLAX} for medians in results.values())
    assert [calls.count(name) for name in ("one device", "plain Flax", "PyTorch, compiled")] == [6, 2, 1]
