"""Tests that the results of `evaluate`, `predict` and `index` in two processes, which divide each batch, are those of one."""

import csv
import json

import numpy as np
import pytest

from tests.parallel.launcher import Launcher


def run_two(arguments, code=0):
    """Run a command in two processes, check that only the first one prints, and return its stdout and stderr."""
    both = Launcher(2, 1).start(arguments)
    (out, err), (other_out, other_err) = (process.communicate(timeout=600) for process in both)
    assert [process.returncode for process in both] == [code, code], err + other_err
    assert other_out == ""
    lines = [line for line in other_err.splitlines() if not line.startswith(("[Gloo]", "process 1 of 2", "error: "))]
    assert lines == []
    return out, err


@pytest.fixture
def run_one(run_command):
    """Return a function that runs a command in this process, checks its exit code, and returns its stdout."""
    return lambda arguments, code=0: run_command(*arguments, code=code).out


@pytest.mark.slow
def test_evaluate(trained_run, run_one, tmp_path):
    """The last of three batches has two images, both in the first process's part."""
    arguments = ["evaluate", trained_run, "--views", "center", "--batch-size", "10"]
    run_one([*arguments, "--to", tmp_path / "one"])
    assert run_two([*arguments, "--to", tmp_path / "two"])[0] == f"{tmp_path}/two/errors.json\n"
    results = [json.loads((tmp_path / name / "errors.json").read_text()) for name in ("one", "two")]
    losses = [result["errors"][0].pop("loss") for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert results[0] == results[1]
    assert results[0]["errors"][0]["images"] == 22
    texts = [(tmp_path / name / "predictions-center.csv").read_text() for name in ("one", "two")]
    for one, two in zip(*(csv.DictReader(text.splitlines()) for text in texts), strict=True):
        assert [one[name] for name in ("image", "class", "class_1")] == [two[name] for name in ("image", "class", "class_1")]
        assert float(one["probability_1"]) == pytest.approx(float(two["probability_1"]), rel=1e-4)


@pytest.mark.slow
def test_index(trained_run, run_one, tmp_path):
    arguments = ["index", trained_run, "--split", "validation", "--batch-size", "8"]
    run_one([*arguments, "--to", tmp_path / "one"])
    assert run_two([*arguments, "--to", tmp_path / "two"])[0] == f"{tmp_path}/two\n"
    one, two = (np.load(tmp_path / name / "features.npy") for name in ("one", "two"))
    assert len(one) == 22
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "two" / "images.jsonl").read_bytes() == (tmp_path / "one" / "images.jsonl").read_bytes()


@pytest.mark.slow
def test_predict(trained_run, photos, run_one, tmp_path):
    """Predict a split of a prepared data set, and photos, one of which cannot be read."""
    data = json.loads((trained_run / "config.json").read_text())["data"]["path"]
    (tmp_path / "cut.jpg").write_bytes(b"no photo")
    files = sorted((photos / "validation" / "above").iterdir())[:3]
    arguments = ["predict", trained_run, data, *files, tmp_path / "cut.jpg", "--format", "json", "--batch-size", "8"]
    one = json.loads(run_one(arguments, code=1))
    out, err = run_two(arguments, code=1)
    two = json.loads(out)
    assert "cut.jpg cannot be read as an image" in err
    assert len(one) == 22 + 3
    assert [row["image"] for row in two] == [row["image"] for row in one]
    for row, other in zip(one, two, strict=True):
        for each, same in zip(row["classes"], other["classes"], strict=True):
            assert each["class"] == same["class"]
            assert each["probability"] == pytest.approx(same["probability"], abs=1e-5)
