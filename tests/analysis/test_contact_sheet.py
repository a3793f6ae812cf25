"""Test that the contact sheet shows the pixels produced by the data pipeline."""

import sys

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.analysis.contact_sheet import CAPTION, GAP
from alexnet_jax.cli import main as cli
from alexnet_jax.data.images import encode_jpeg
from alexnet_jax.data.pipeline.augment import Augmentation
from alexnet_jax.data.pipeline.batches import training_batches
from alexnet_jax.data.pipeline.loading import DecodedImages
from alexnet_jax.data.prepare.shards import create_dataset
from alexnet_jax.data.records import Record, open_dataset


@pytest.fixture
def dataset(tmp_path, rng):
    with create_dataset(tmp_path / "data" / "squares", ["left", "right"], size=160) as writer:
        for split in ("train", "validation"):
            for i in range(4):
                pixels = np.kron(rng.integers(0, 256, (10, 10, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
                writer.write(split, Record(encode_jpeg(pixels), i % 2, f"{i}.jpg"), pixels)
    return open_dataset(tmp_path / "data" / "squares")


def test_data_show_draws_training_images_and_ten_views(dataset, tmp_path, monkeypatch, capsys):
    out, data_dir = tmp_path / "sheet.png", str(dataset.path.parent)
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "data", "show", "squares", "--data-dir", data_dir, "--out", str(out)])
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
