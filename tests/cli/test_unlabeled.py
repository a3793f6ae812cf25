"""Tests of splits without labels: the contest's format of predictions, and what is refused."""

import csv
import sys

import numpy as np
import pytest

from alexnet_jax.cli import main as cli
from alexnet_jax.data.class_names import ilsvrc_numbers
from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.weights.trained_model import initialize, save
from tests.data.sources.archives import WNIDS
from tests.data.sources.shard_files import PICTURES, write_folders
from tests.tiny import TINY


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two networks, and two data sets of the same images; the labels of the test images are hidden in the second one."""
    root = tmp_path_factory.mktemp("unlabeled")
    for seed in (0, 1):
        save(initialize(TINY, classes=WNIDS, image_size=32, seed=seed), root / f"{seed}.safetensors")
    rng = np.random.default_rng(0)
    images = [(i % 3, f"ILSVRC2012_test_{i:08}.JPEG", PICTURES["train"][i - 1][2]) for i in rng.permutation(np.arange(1, 13))]
    shown = PICTURES | {"test": images}
    hidden = PICTURES | {"test": [(-1, name, data) for _, name, data in images]}
    for name, pictures in {"shown": shown, "hidden": hidden}.items():
        prepare_path(write_folders(root / f"{name}-source", pictures), root / name, PrepareOptions(size=32))
    return root


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as error:
        return error.code or 0
    return 0


@pytest.mark.parametrize("networks", [1, 2])
def test_rows_of_the_contest_are_the_predictions_of_evaluate(files, networks, monkeypatch, capsys, tmp_path):
    models = [files / f"{number}.safetensors" for number in range(networks)]
    evaluate = ["evaluate", *models, "--data", files / "shown", "--split", "test", "--views", "ten", "--to", tmp_path]
    assert run(monkeypatch, *evaluate, "--batch-size", 5) == 0
    capsys.readouterr()
    predict = ["predict", *models, files / "hidden", "--views", "ten", "--format", "ilsvrc", "--batch-size", 5]
    assert run(monkeypatch, *predict) == 0
    rows = capsys.readouterr().out.splitlines()
    with open(tmp_path / "predictions-ten.csv") as file:
        evaluated = sorted(csv.DictReader(file), key=lambda row: row["image"].rpartition("/")[2])
    assert len(rows) == 12
    expected = [ilsvrc_numbers([row[f"class_{rank}"] for rank in (1, 2, 3)]) for row in evaluated]
    assert [list(map(int, row.split())) for row in rows] == expected


def test_images_without_labels_are_refused_or_shown(files, monkeypatch, capsys, tmp_path):
    model, data = files / "0.safetensors", files / "hidden"
    assert run(monkeypatch, "evaluate", model, "--data", data, "--split", "test", "--to", tmp_path) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert (
        f"the test images of {data} have no labels: write predictions with alexnet-jax predict RUN {data} --split test" in error
    )
    assert run(monkeypatch, "evaluate", model, "--data", data, "--views", "center", "--to", tmp_path) == 0
    assert "on the validation split" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, "data", "show", data, "--split", "test", "--to", tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert run(monkeypatch, "figures", model, "--data", data, "--split", "test", "--to", tmp_path / "figures") == 0
    page = (tmp_path / "figures" / "report.html").read_text()
    assert "ILSVRC2012_test_00000001.JPEG" in page
    assert "goldfish</li>" in page
    assert "n01443537</li>" not in page


def test_table_and_json_print_names(files, monkeypatch, capsys):
    photo = next((files / "hidden-source").rglob("*test_00000001.JPEG"))
    assert run(monkeypatch, "predict", files / "0.safetensors", photo) == 0
    assert "crane bird" in capsys.readouterr().out
    assert run(monkeypatch, "predict", files / "0.safetensors", photo, "--format", "json") == 0
    assert '"class": "n01443537",\n    "name": "goldfish",' in capsys.readouterr().out


def test_index_keeps_classes_and_retrieve_prints_names(files, monkeypatch, capsys, tmp_path):
    photo = next((files / "hidden-source").rglob("*test_00000001.JPEG"))
    labels = {}
    for split in ("train", "test"):
        index = ["index", files / "0.safetensors", "--data", files / "hidden", "--split", split, "--to", tmp_path / split]
        assert run(monkeypatch, *index) == 0
        capsys.readouterr()
        assert run(monkeypatch, "retrieve", tmp_path / split, photo, "--nearest", 20) == 0
        labels[split] = {line.split("\t")[3] for line in capsys.readouterr().out.splitlines()}
    assert labels == {"train": {"tench", "goldfish", "crane bird"}, "test": {""}}
    assert '"n01443537"]' in (tmp_path / "train" / "images.jsonl").read_text()


def test_contest_format_is_refused_without_its_classes_or_with_missing_images(files, monkeypatch, capsys, tmp_path):
    save(initialize(TINY, classes=["a", "b"], image_size=32), tmp_path / "other.safetensors")
    photo = next((files / "hidden-source").rglob("*test_00000001.JPEG"))
    assert run(monkeypatch, "predict", tmp_path / "other.safetensors", photo, "--format", "ilsvrc") == 1
    assert "classes that are not WordNet ids of ILSVRC" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "photos" / "2.jpg").write_bytes(photo.read_bytes()[:300])
    assert run(monkeypatch, "predict", files / "0.safetensors", tmp_path / "photos", "--format", "ilsvrc") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 of 2 photos cannot be read" in " ".join(captured.err.split())
    (tmp_path / "photos" / "3.jpg").write_bytes(photo.read_bytes())
    by_one = ["--format", "ilsvrc", "--batch-size", 1]
    assert run(monkeypatch, "predict", files / "0.safetensors", tmp_path / "photos", *by_one) == 1
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1, "the row of the first photo; that of the third one is not the second row"
    assert "1 of 3 photos cannot be read" in " ".join(captured.err.split())
    pictures = PICTURES | {"test": [*PICTURES["test"], (-1, "ILSVRC2012_test_00000004.JPEG", b"no image" * 9)]}
    prepare_path(write_folders(tmp_path / "source", pictures), tmp_path / "damaged", PrepareOptions(size=32))
    assert run(monkeypatch, "predict", files / "0.safetensors", tmp_path / "damaged", "--format", "ilsvrc") == 1
    assert "lacks 1 test images that could not be read" in " ".join(capsys.readouterr().err.split())
