"""Test that the contact sheet shows the pixels produced by the data pipeline."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.analysis.contact_sheet import CAPTION, GAP, MIN_SIDE
from alexnet_jax.cli import main as cli
from alexnet_jax.data.find import find_dataset
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import training_batches
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.records import Record, open_dataset
from alexnet_jax.training.config import Options
from alexnet_jax.training.open_run import open_run
from alexnet_jax.training.run_config import RunConfig
from tests.dataset_writer import create_dataset


@pytest.fixture
def dataset(tmp_path, rng):
    with create_dataset(tmp_path / "data" / "squares", ["left", "right"], size=160) as writer:
        for split in ("train", "validation"):
            for i in range(4):
                pixels = np.kron(rng.integers(0, 256, (10, 10, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
                writer.write(split, Record(encode_jpeg(pixels), i % 2, f"{i}.jpg"), pixels)
    return open_dataset(tmp_path / "data" / "squares")


def test_data_show_draws_training_images_and_ten_views(dataset, tmp_path, monkeypatch, capsys):
    out, data_dir = tmp_path / "new" / "sheet.png", str(dataset.path.parent)
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "data", "show", "squares", "--data-dir", data_dir, "--to", str(out)])
    cli.main()
    assert capsys.readouterr().out.strip() == str(out)
    sheet = np.asarray(Image.open(out)).astype(int)
    batch = next(training_batches(dataset, Augmentation(image_size=160), input_size=140, batch_size=24, seed=0))
    second = sheet[CAPTION : CAPTION + 140, 140 + GAP : 280 + GAP]
    np.testing.assert_allclose(second, np.clip(batch.image[1] + batch.color_shift[1], 0, 255), atol=0.51)
    images = DecodedImages(dataset, "validation", 160)
    image = images.decode(images.record(0))
    top = 2 * CAPTION + 3 * (140 + CAPTION + GAP)
    np.testing.assert_array_equal(sheet[top : top + 160, :160], image)
    views = top + 160 + CAPTION + GAP, 160 + GAP + 4 * (140 + GAP)  # last view in the second row: flipped center crop
    np.testing.assert_array_equal(sheet[views[0] : views[0] + 140, views[1] : views[1] + 140], image[10:150, 10:150][:, ::-1])


def show(arguments, monkeypatch, capsys):
    """Run `data show` and return the path that it prints."""
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "data", "show", *map(str, arguments)])
    cli.main()
    return Path(capsys.readouterr().out.strip())


def test_sheet_is_written_beside_the_prepared_data_set(dataset, tmp_path, monkeypatch, capsys):
    """Check that nothing is written to the current folder, or to the folder of the photos."""
    photos, current = tmp_path / "photos", tmp_path / "current"
    current.mkdir()
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(photos / name / f"{i}.png")
    monkeypatch.chdir(current)
    assert show([dataset.path], monkeypatch, capsys) == dataset.path.with_name("squares.png")
    before = sorted(photos.rglob("*"))
    file = show([photos, "--data-dir", dataset.path.parent], monkeypatch, capsys)
    assert file.parent == dataset.path.parent
    assert file.with_suffix("").is_dir()
    assert sorted(photos.rglob("*")) == before
    assert not list(current.iterdir())
    (photos / "a" / "0.png").unlink()
    find_dataset(str(photos), "", dataset.path.parent)
    assert f"prepared as {file.with_suffix('')}:" in capsys.readouterr().err
    find_dataset(str(photos), "", dataset.path.parent)
    assert ".png" not in capsys.readouterr().err


def test_sheet_of_a_run_shows_its_augmentation(trained_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(trained_run, tmp_path / "run")
    file = show([run], monkeypatch, capsys)
    assert file == run / "data.png"
    config = json.loads((run / "config.json").read_text())
    assert (config["network"]["input_size"], config["augmentation"]["image_size"]) == (29, 32)
    side = 29 * -(-MIN_SIDE // 29)
    with Image.open(file) as sheet:
        assert sheet.width == 8 * (side + GAP)
    options = Options(run=run, fresh=True)
    open_run(run, RunConfig.from_json(config, run), options).close()
    assert not file.exists(), "--fresh deletes it"


def test_sheet_that_is_no_png_is_refused(dataset, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        show([dataset.path, "--to", "sheet"], monkeypatch, capsys)
    assert "error: sheet must end in .png: pass the name of a PNG file as --to" in capsys.readouterr().err
