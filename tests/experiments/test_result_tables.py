"""The tables of README.md and docs/: made from results that are committed, and from what others have published."""

import json
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def experiments(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")


def test_the_tables_are_those_of_the_results():
    readme = import_module("result_tables")
    text = "".join(file.read_text() for file in readme.PAGES)
    assert readme.filled(text) == text, "run `make readme`"
    assert all(text.count(f"<!-- {name} -->") == 1 for name in readme.TABLES), "each in one file"


def test_what_nobody_has_measured_is_a_dash(tmp_path, monkeypatch):
    tables = import_module("paper_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for make in tables.TABLES.values():
        header, _, *rows = make().splitlines()
        assert all(row.count(" | ") == header.count(" | ") for row in rows)
        assert all(row.endswith(" — |") for row in rows)
    assert "| 1 CNN | 40.7% | 18.2% | — | 40.66% | 18.21% | — | — |" in tables.table_2()


def test_ours_stand_beside_what_is_published(tmp_path, monkeypatch):
    tables = import_module("paper_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def errors(of, views, top1):
        return {"of": of, "views": views, "top1_error": top1, "top5_error": top1 / 2}

    def write(name, **content):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    write("ilsvrc2010", errors=[errors("runs/a", "center", 0.4), errors("runs/a", "ten", 0.38)])
    assert "| CNN | 37.5% | 17.0% | 37.47% | 17.00% | 38.00% | 19.00% |" in tables.table_1()
    assert "| CNN, center view (footnote 5) | 39.0% | 18.3% | 39.02% | 18.30% | 40.00% | 20.00% |" in tables.table_1()

    names = ("runs/a", "runs/b", "mean", "weighted by validation")
    five = [errors(name, "ten", 0.36 - place / 100) for place, name in enumerate(names)]
    write("ilsvrc2012_five", errors=five)
    assert "| 5 CNNs | 38.1% | 16.4% | 16.4% | — | — | 34.00% | 17.00% |" in tables.table_2(), "the plain mean"
    networks = [{"path": "runs/a", "network": "two_tower"}, {"path": "runs/b", "network": "source_145"}]
    write("clothing10_evaluation", networks=networks, errors=five)
    assert "| `source_145` | — | — | 35.0% | 17.5% |" in tables.clothing()
    assert "| mean of their predictions | — | — | 34.0% | 17.0% |" in tables.clothing()

    worth = {"top1": {"delta": 0.02, "low": 0.01, "high": 0.03}, "top5": {"delta": -0.001, "low": None, "high": None}}
    study = {"base": "source_145", "data": "photos", "epochs": 12, "seeds": [0, 1]}
    write("ablations_photos", ablations={"no_lrn": worth, "tanh": worth}, **study)
    said = tables.ablations()
    assert "ours: `source_145` on photos, 12 epochs, 2 seeds, top-1 | top-5 |" in said
    assert "| response normalization | 3.3 | +1.4 | +1.2 | +1.37 | +1.15 | +2.00 (+1.00 to +3.00) | -0.10 |" in said
    assert "| `tanh` |  | — | — | — | — | +2.00 (+1.00 to +3.00) | -0.10 |" in said
    assert "| dropout | 4.2 | substantial overfitting | — | — | — | — | — |" in said

    figure = {"relu": {"epochs_to_25_percent": 5.0}, "tanh": {"epochs_to_25_percent": 21.0}, "tanh_by_relu": 4.2}
    write("cifar_figure1", **figure)
    write("cifar_lrn", epochs=12, seeds=[0], test_error={"with": [0.25, 0.26], "without": [0.27]}, difference=None)
    said = tables.cifar()
    assert "| 6 | 4.2 (21.0 by 5.0, one seed) |" in said
    assert "with normalization | 11% | 25.00% |" in said, "of whole pairs"
    assert "| difference | +2 | — |" in said
