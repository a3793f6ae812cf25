"""Tests of `retrieve`: its output, options and messages."""

import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.analysis import code_search
from alexnet_jax.analysis.binary_codes import Autoencoder
from alexnet_jax.analysis.indexing import build_index
from alexnet_jax.cli import main as cli
from alexnet_jax.cli import retrieve as retrieve_module
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.weights.trained_model import load


@pytest.fixture(scope="module")
def indexed_run(trained_run, tmp_path_factory):
    """Run folder with an index of the training images."""
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("indexed") / "run")
    model = load(run)
    build_index(model, find_training_dataset(None, model.config.data.path, run), "train", run / "index", batch_size=16)
    return run


def retrieve(monkeypatch, capsys, *arguments, code=0):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "retrieve", *map(str, arguments)])
    with nullcontext() if code == 0 else pytest.raises(SystemExit, match=str(code)):
        cli.main()
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_finds_indexed_photos_first(trained_run, photos, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(trained_run, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "index", str(run)])
    cli.main()
    assert capsys.readouterr().out.strip() == str(run / "index")
    files = [photos / "train" / "above" / "3.jpg", photos / "train" / "below" / "17.jpg"]
    (checkpoint, *_) = (run / "checkpoints").glob("[0-9]*")
    assert retrieve(monkeypatch, capsys, checkpoint, *files) == retrieve(monkeypatch, capsys, run, *files)
    lines = retrieve(monkeypatch, capsys, run, *files, "--nearest", 4, "--picture", tmp_path / "retrieved.png")
    assert [line[0] for line in lines] == [str(file) for file in files for _ in range(4)]
    assert [line[1] for line in lines] == ["1", "2", "3", "4"] * 2
    assert lines[0][3:] == ["above", "train/above/3.jpg"]
    assert lines[4][3:] == ["below", "train/below/17.jpg"]
    # `retrieve` encodes a photo as JPEG like the images of the data set, so its pixels equal those of the stored image.
    assert float(lines[0][2]) == pytest.approx(0, abs=1e-3)
    assert float(lines[1][2]) > 0.01
    with Image.open(tmp_path / "retrieved.png") as image:
        assert image.width > image.height


def test_searches_by_codes_in_batches(trained_run, photos, tmp_path, monkeypatch, capsys):
    index, folder = tmp_path / "index", photos / "train" / "above"
    command = ["index", str(trained_run), "--to", str(index)]

    def build(*options, code=0):
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", *command, *options])
        with nullcontext() if code == 0 else pytest.raises(SystemExit, match=str(code)):
            cli.main()
        return capsys.readouterr().err

    assert "--bits must be a multiple of 8, not 100" in build("--bits", "100", code=1)
    assert not index.exists()
    build()
    exact = retrieve(monkeypatch, capsys, index, folder, "--nearest", 2)
    monkeypatch.setattr(code_search, "AUTOENCODER", Autoencoder(hidden=8, steps=5, batch_size=8))
    assert "is already complete" in build("--bits", "16")
    monkeypatch.setattr(retrieve_module, "BATCH_SIZE", 16)
    monkeypatch.setattr(retrieve_module, "EXACT_QUERIES", 20)
    monkeypatch.setattr(retrieve_module, "MAX_ROWS", 18)
    decoded, read = [], retrieve_module.read_photos

    def read_and_count(*arguments):
        for names, photos in read(*arguments):
            decoded.append(len(names))
            yield names, photos

    monkeypatch.setattr(retrieve_module, "read_photos", read_and_count)

    def lines(*options):
        decoded.clear()
        monkeypatch.setattr(sys, "argv", ["alexnet_jax", "retrieve", str(index), str(folder), "--nearest", "2", *options])
        cli.main()
        captured = capsys.readouterr()
        return [line.split("\t") for line in captured.out.splitlines()], captured.err

    by_codes, message = lines()
    assert "Searching 80 images by 16-bit codes, with exact distances of the nearest 2,000; --exact compares all" in message
    assert decoded == [16, 16, 8]
    searched_exactly, message = lines("--exact")
    assert "Searching 80 images exactly" in message
    drawn = []
    monkeypatch.setattr(retrieve_module, "draw_retrievals", lambda retrievals, file: drawn.extend(retrievals))
    few, message = lines("--candidates", "2", "--picture", str(tmp_path / "few.png"))
    assert f"{tmp_path}/few.png will show the first 18 of 40 photos" in message
    assert [retrieval.query.name for retrieval in drawn] == [Path(line[0]).name for line in few[: 2 * 18 : 2]]
    assert all(len(retrieval.neighbors) == 2 for retrieval in drawn)
    for found in (by_codes, searched_exactly):
        assert [(*line[:2], *line[3:]) for line in found] == [(*line[:2], *line[3:]) for line in exact]
        np.testing.assert_allclose([float(line[2]) for line in found], [float(line[2]) for line in exact], atol=1e-4)
    assert len(few) == len(exact)
    (index / "codes.safetensors").write_bytes(b"damaged")
    assert retrieve(monkeypatch, capsys, index, folder / "3.jpg", code=1) == []
    assert len(retrieve(monkeypatch, capsys, index, folder / "3.jpg", "--exact")) == 6


def test_takes_folders_and_skips_files_that_are_no_photos(indexed_run, photos, tmp_path, monkeypatch, capsys):
    folder, text = tmp_path / "some", tmp_path / "text.jpg"
    folder.mkdir()
    shutil.copy(photos / "train" / "above" / "3.jpg", folder)
    text.write_text("no photo")
    lines = retrieve(monkeypatch, capsys, indexed_run, text, folder, "--top", 1, "--picture", tmp_path / "one.png", code=1)
    assert [(line[0], line[4]) for line in lines] == [(f"{folder}/3.jpg", "train/above/3.jpg")]
    assert (tmp_path / "one.png").exists()
    assert retrieve(monkeypatch, capsys, indexed_run, text, code=1) == []


def test_says_that_the_run_was_trained_further(indexed_run, tmp_path, monkeypatch, capsys, photos):
    run = shutil.copytree(indexed_run, tmp_path / "run")
    (run / "checkpoints" / "1000").mkdir()
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "retrieve", str(run), str(photos / "train" / "above" / "3.jpg")])
    cli.main()
    assert f"{run}/index is of step 60, but {run} has reached step 1000" in capsys.readouterr().err
