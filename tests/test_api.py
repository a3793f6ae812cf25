"""The Python interface: what `import alexnet_jax` names."""

import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

import alexnet_jax as alexnet
from tests.conftest import TINY_CONFIG
from tests.tiny import TINY

CLASSES = ["above", "below", "beside"]


@pytest.fixture
def untrained():
    return alexnet.initialize(TINY, classes=CLASSES, image_size=36)


def test_every_name_is_there():
    assert all(hasattr(alexnet, name) for name in alexnet.__all__)
    assert set(alexnet.__all__) <= set(dir(alexnet))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = alexnet.nothing


def test_names_are_imported_when_they_are_asked_for():
    heavy = ["grain", "orbax", "matplotlib", "safetensors", "alexnet_jax.training.loop"]
    code = f"import sys, alexnet_jax; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_new_network_is_the_one_that_training_begins_with(untrained):
    mesh = alexnet.placement.make_mesh(untrained.network, jax.devices()[:2], split_towers=True)
    optimizer = alexnet.optimizer.paper_update()
    begun = alexnet.step.initial_state(untrained.network, mesh, optimizer, seed=0).params
    assert all(map(np.array_equal, jax.tree.leaves(untrained.params), jax.tree.leaves(begun)))
    other = alexnet.initialize(TINY, classes=CLASSES, image_size=36, seed=1)
    assert not np.array_equal(other.params["conv1"]["kernel"], untrained.params["conv1"]["kernel"])
    with pytest.raises(alexnet.UserError, match="images of 20 pixels are too small for tiny"):
        alexnet.initialize(TINY, image_size=20)


def test_photos_are_classified(untrained, tmp_path, rng):
    squares = rng.integers(0, 256, (3, 36, 36, 3), np.uint8)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, square in zip(files, squares, strict=True):
        Image.fromarray(square).save(file)
    predict = alexnet.Predictor(untrained, views="ten", batch_size=2)
    assert np.array_equal(predict(files), predict(squares))
    for guesses, row in zip(predict.classify([*map(str, files)], top=2), predict(squares), strict=True):
        assert [guess.probability for guess in guesses] == sorted(row, reverse=True)[:2]
        assert [guess.name for guess in guesses] == [CLASSES[label] for label in np.argsort(-row)[:2]]


def test_what_is_no_probability_is_not_classified(untrained):
    with pytest.raises(alexnet.UserError, match="what fc6 puts out are no probabilities"):
        alexnet.Predictor(untrained, layer="fc6").classify(["photo.jpg"])


def test_what_is_no_picture_is_named(untrained, tmp_path):
    (tmp_path / "photo.jpg").write_text("no picture")
    with pytest.raises(alexnet.UserError, match=r"photo.jpg cannot be read as a picture"):
        alexnet.Predictor(untrained)([tmp_path / "photo.jpg"])


def test_from_training_to_a_file_and_back(photos, tmp_path):
    options = alexnet.Options(data=str(photos), data_dir=tmp_path / "data", runs_dir=tmp_path / "runs")
    run = alexnet.train("mine", replace(TINY_CONFIG, epochs=1), options)
    trained = alexnet.load(str(run))
    alexnet.save(trained, str(tmp_path / "model.safetensors"))
    loaded = alexnet.load(str(tmp_path / "model.safetensors"))
    assert loaded.classes == ["above", "below"]
    assert all(map(np.array_equal, jax.tree.leaves(trained.params), jax.tree.leaves(loaded.params)))
    with pytest.raises(alexnet.UserError, match=r"model.npz should end in .safetensors"):
        alexnet.save(trained, tmp_path / "model.npz")
