"""An index of a trained network: what it holds, what is found in it, and what it refuses."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.analysis import index as index_module
from alexnet_jax.analysis.index import About, Index, Indexed, new_index
from alexnet_jax.analysis.indexing import build_index, last_hidden_layer, load_indexed_model, open_indexed_dataset
from alexnet_jax.cli import main as cli
from alexnet_jax.data.find import find_training_dataset
from alexnet_jax.data.pipeline.photo import read_photo
from alexnet_jax.errors import UserError
from alexnet_jax.evaluation.predictor import Predictor
from alexnet_jax.model.layers import Conv, Dense, Dropout, MaxPool, ReLU
from alexnet_jax.model.network import Network
from alexnet_jax.weights.trained_model import load
from tests.analysis.test_exact_search import brute_force


@pytest.fixture(scope="module")
def dataset(trained_run):
    return find_training_dataset(None, json.loads((trained_run / "config.json").read_text())["data"]["path"], trained_run)


@pytest.fixture(scope="module")
def index(trained_run, dataset, tmp_path_factory):
    return build_index(load(trained_run), dataset, "train", tmp_path_factory.mktemp("made") / "index", batch_size=16)


@pytest.fixture
def copy(index, tmp_path):
    return shutil.copytree(index.path, tmp_path / "copy")


def small_index(path, features):
    images = [Indexed(f"{i}", "a") for i in range(len(features))]
    with new_index(path, About(*features.shape)) as writer:
        writer.add(features, images)
    return Index(path)


def test_an_index_holds_what_the_last_hidden_layer_makes_of_each_image(trained_run, dataset, index):
    of = Predictor(load(trained_run), layer="fc6/relu", batch_size=16).split(dataset, "train")
    held = np.load(index.path / "features.npy")
    np.testing.assert_array_equal(held, of.rows)
    assert held.std(axis=0).max() > 0
    assert (held >= 0).all()
    images = index.images(range(80))
    assert {image.label for image in images.values()} == {"above", "below"}
    assert [dataset.manifest.classes.index(images[row].label) for row in range(80)] == of.labels.tolist()
    assert len({image.name for image in images.values()}) == 80


def test_what_is_read_in_blocks_is_searched_as_a_whole(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK_BYTES", 4 * 3 * 7)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    index = small_index(tmp_path / "index", features)
    assert [len(block) for block in index.blocks()] == [7, 7, 7, 7, 7, 5]
    found = index.search(features[:9], 6)
    expected, distances = brute_force(features[:9], features, 6)
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_array_equal(found.distances, distances)
    assert index.search(features[:2], 100).rows.shape == (2, 40)


def retrieve(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "retrieve", *map(str, arguments)])
    cli.main()
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_photos_of_the_data_set_find_themselves(trained_run, photos, tmp_path, monkeypatch, capsys):
    made = tmp_path / "index"
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "index", str(trained_run), "--to", str(made)])
    cli.main()
    assert capsys.readouterr().out.strip() == str(made)
    files = [photos / "train" / "above" / "3.jpg", photos / "train" / "below" / "17.jpg"]
    lines = retrieve(monkeypatch, capsys, made, *files, "--nearest", 4, "--picture", tmp_path / "found.png")
    assert [line[0] for line in lines] == [str(file) for file in files for _ in range(4)]
    assert [line[1] for line in lines] == ["1", "2", "3", "4"] * 2
    assert lines[0][3:] == ["above", "train/above/3.jpg"]
    assert lines[4][3:] == ["below", "train/below/17.jpg"]
    # Stored as JPEG once more, as the data set's images are, a photo is the stored image.
    assert float(lines[0][2]) == pytest.approx(0, abs=1e-3)
    assert float(lines[1][2]) > 0.01
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.width > picture.height


def test_a_photo_is_prepared_as_the_data_set_was(dataset, photos):
    """Of any format, of which the central square counts."""
    size, encoding = dataset.manifest.size, dataset.manifest.encoding
    photo = read_photo(photos / "train" / "above" / "3.jpg", size=size, encoding=encoding, image_size=32)
    assert photo.shape == (32, 32, 3)
    raw = read_photo(photos / "train" / "above" / "3.jpg", size=size, encoding="raw", image_size=32)
    np.testing.assert_allclose(photo.astype(int), raw.astype(int), atol=40)


@pytest.mark.parametrize("what", ["not there", "no picture"])
def test_a_photo_that_cannot_be_read_is_named(what, tmp_path):
    file = tmp_path / "photo.jpg"
    if what == "no picture":
        file.write_text("…")
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}.*(No such file|none of JPEG)"):
        read_photo(file, size=256, encoding="jpeg", image_size=32)


def test_other_parameters_are_refused(index, copy, trained_run, tmp_path):
    assert load_indexed_model(Index(copy), trained_run).step == index.about.step
    about = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**about, "parameters": "0" * 64}))
    with pytest.raises(UserError, match=r"copy was made by other parameters than those of .* at step 60: make it again"):
        load_indexed_model(Index(copy))
    with pytest.raises(UserError, match=r"step 60 of .*/elsewhere, which is not there: say where the run is with --run"):
        load_indexed_model(index, tmp_path / "elsewhere")


def test_another_data_set_is_refused(copy, dataset):
    assert open_indexed_dataset(Index(copy)).path == dataset.path
    about = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**about, "split": "validation"}))
    with pytest.raises(UserError, match=r"has 22 validation images, and .*copy 80"):
        open_indexed_dataset(Index(copy))
    with pytest.raises(UserError, match="no prepared data set"):
        open_indexed_dataset(Index(copy), copy)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("features.npy", lambda content: content[:-1], r"features.npy has 5,247 bytes, not 5,248"),
        ("features.npy", lambda content: content[:50], "is damaged"),
        ("images.jsonl", lambda content: content + b"\n", "images.jsonl has"),
        ("index.json", lambda content: content[:-9], "is damaged"),
        ("index.json", lambda content: content.replace(b'"format": 1', b'"format": 0'), "another version"),
        ("images.jsonl", lambda content: None, "has no images.jsonl"),
    ],
)
def test_a_damaged_index_is_refused(file, damage, message, copy):
    content = damage((copy / file).read_bytes())
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Index(copy)
    assert "\n" not in str(error.value)


def test_a_file_that_shrinks_while_it_is_searched_is_said(copy):
    index = Index(copy)
    os.truncate(copy / "features.npy", 4000)
    with pytest.raises(UserError, match=r"features.npy has become shorter"):
        index.search(np.zeros((1, 16), np.float32), 1)


def test_an_index_is_there_whole_or_not_at_all(tmp_path, rng, monkeypatch):
    features = rng.normal(size=(5, 3)).astype(np.float32)
    with pytest.raises(OSError, match="cannot go on"), new_index(tmp_path / "index", About(5, 3)) as writer:  # noqa: PT012
        writer.add(features[:2], [Indexed("a", "b")] * 2)
        raise OSError("cannot go on")
    assert list(tmp_path.iterdir()) == []
    killed = tmp_path / ".index.partial"  # what a process that was killed has left behind
    killed.mkdir()
    (killed / "features.npy").write_bytes(b"half")
    with new_index(tmp_path / "index", About(5, 3)) as writer:
        with pytest.raises(UserError, match="another process is making"), new_index(tmp_path / "index", About(5, 3)):
            pass
        writer.add(features, [Indexed("a\n", "b")] * 5)
    np.testing.assert_array_equal(np.load(tmp_path / "index" / "features.npy"), features)
    assert Index(tmp_path / "index").images([4]) == {4: Indexed("a\n", "b")}
    with pytest.raises(UserError, match="index exists: choose another folder"), new_index(tmp_path / "index", About(5, 3)):
        pass
    monkeypatch.setattr(index_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="no room for an index of 4 MB"), new_index(tmp_path / "large", About(1000, 1000)):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


def test_a_split_that_is_not_there_is_named(trained_run, dataset, tmp_path):
    with pytest.raises(UserError, match="has no split 'test'; it has train, validation"):
        build_index(load(trained_run), dataset, "test", tmp_path / "index")


def test_the_last_hidden_layer_is_what_the_last_one_with_weights_reads():
    """Of a network for CIFAR maps that are pooled; of a bottleneck its few linear units."""
    convolutions = (Conv(8, name="conv1"), ReLU(), MaxPool())
    assert last_hidden_layer(Network("pooled", (*convolutions, Dense(10, name="fc10")))) == "conv1/pool"
    bottleneck = (*convolutions, Dense(9, name="fc2"), ReLU(), Dropout(), Dense(4, name="narrow"), Dense(10, name="fc3"))
    assert last_hidden_layer(Network("bottleneck", bottleneck)) == "narrow"
