"""Tests of experiments/pixel_neighbors.py on a small data set."""

from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.prepare.convert import PrepareOptions, prepare_path
from alexnet_jax.training.config import Options
from alexnet_jax.training.train import train
from tests.tiny_config import CONFIG


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments")
    return import_module("pixel_neighbors")


def test_nearness_is_relative_to_all_training_images(study):
    training = np.array([[0.0, 0], [3, 4], [0, 2], [0, 1]], np.float32)
    queries = np.zeros((2, 2), np.float32)
    metrics = study.nearness(np.array([[0, 1], [2, 0]]), training, queries)
    assert metrics == {"distance by mean distance": pytest.approx(0.5), "fraction nearer": pytest.approx(0.25)}


@pytest.mark.slow
def test_neighbors_of_uniform_images_are_of_their_class(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "Autoencoder", partial(study.Autoencoder, steps=20))
    monkeypatch.setattr(study, "SIDE", 8)
    for split, images in (("train", 8), ("test", 4)):
        for number in range(4):
            (tmp_path / "photos" / split / f"class{number}").mkdir(parents=True)
            for i in range(images):
                pixels = np.full((64, 64, 3), 60 * number + i, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / f"class{number}" / f"{i}.png")
    dataset = prepare_path(tmp_path / "photos", tmp_path / "gray", PrepareOptions(size=64))
    options = Options(data=str(dataset.path), runs_dir=tmp_path)
    run = train("tiny", CONFIG.with_epochs(1), options).run
    result = study.compare(study.Study(run, data=str(dataset.path), bits=32, seeds=1))
    assert (result["images"], result["queries"], result["same class, random images"]) == (32, 16, 0.25)
    methods = result["methods"]
    assert list(methods) == ["features", "codes of features", "pixels", "codes of pixels"]
    assert methods["pixels"]["first"] == 1.0
    assert methods["pixels"]["fraction nearer"] == 0.0
    assert methods["pixels"]["distance by mean distance"] == min(row["distance by mean distance"] for row in methods.values())
