"""Tests of the public API of `alexnet_jax`."""

import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

import alexnet_jax as alexnet
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.optimizer import paper_update
from alexnet_jax.training.step import initial_state
from tests.conftest import TINY_CONFIG
from tests.tiny import TINY

CLASSES = ["above", "below", "beside"]


@pytest.fixture
def untrained_model():
    return alexnet.initialize(TINY, classes=CLASSES, image_size=36)


def test_all_public_names_exist():
    assert all(hasattr(alexnet, name) for name in alexnet.__all__)
    assert set(alexnet.__all__) <= set(dir(alexnet))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = alexnet.nothing


def test_imports_are_lazy():
    modules = ["grain", "orbax", "matplotlib", "safetensors", "alexnet_jax.training.train"]
    code = f"import sys, alexnet_jax; print([name for name in {modules} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_initialize_returns_initial_parameters_of_training(untrained_model):
    mesh = make_mesh(untrained_model.network, jax.devices()[:2], split_towers=True)
    optimizer = paper_update()
    expected = initial_state(untrained_model.network, mesh, optimizer, seed=0).params
    assert all(map(np.array_equal, jax.tree.leaves(untrained_model.params), jax.tree.leaves(expected)))
    other = alexnet.initialize(TINY, classes=CLASSES, image_size=36, seed=1)
    assert not np.array_equal(other.params["conv1"]["kernel"], untrained_model.params["conv1"]["kernel"])
    with pytest.raises(alexnet.UserError, match="images of 20 pixels are too small for tiny"):
        alexnet.initialize(TINY, image_size=20)


def test_classify_photos(untrained_model, tmp_path, rng):
    images = rng.integers(0, 256, (3, 36, 36, 3), np.uint8)
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    predictor = alexnet.Predictor(untrained_model, views="ten", batch_size=2)
    assert np.array_equal(predictor(files), predictor(images))
    for predictions, row in zip(predictor.classify([*map(str, files)], top=2), predictor(images), strict=True):
        assert [prediction.probability for prediction in predictions] == sorted(row, reverse=True)[:2]
        assert [prediction.name for prediction in predictions] == [CLASSES[label] for label in np.argsort(-row)[:2]]


def test_classify_with_layer_raises(untrained_model):
    with pytest.raises(alexnet.UserError, match="outputs of fc6 are not class probabilities"):
        alexnet.Predictor(untrained_model, layer="fc6").classify(["photo.jpg"])


def test_unreadable_image_raises(untrained_model, tmp_path):
    (tmp_path / "photo.jpg").write_text("not an image")
    with pytest.raises(alexnet.UserError, match=r"photo.jpg cannot be read as an image"):
        alexnet.Predictor(untrained_model)([tmp_path / "photo.jpg"])


def test_train_save_and_load(photos, tmp_path):
    options = alexnet.Options(data=str(photos), data_dir=tmp_path / "data", runs_dir=tmp_path / "runs")
    run = alexnet.train("mine", replace(TINY_CONFIG, epochs=1), options).run
    model = alexnet.load(str(run))
    alexnet.save(model, str(tmp_path / "model.safetensors"))
    loaded = alexnet.load(str(tmp_path / "model.safetensors"))
    assert loaded.classes == ["above", "below"]
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(loaded.params)))
    with pytest.raises(alexnet.UserError, match=r"model.npz must end in .safetensors"):
        alexnet.save(model, tmp_path / "model.npz")
