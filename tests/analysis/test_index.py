"""Tests of building, searching and validating an index of a trained model's features."""

import gc
import json
import os
import shutil
import threading

import numpy as np
import pytest

from alexnet_jax.analysis import index as index_module
from alexnet_jax.analysis import index_writer
from alexnet_jax.analysis.index import Index, IndexedImage, IndexMetadata
from alexnet_jax.analysis.index_writer import create_index
from alexnet_jax.analysis.indexing import build_index, last_hidden_layer, load_indexed_model, open_indexed_dataset
from alexnet_jax.data.find import find_training_dataset
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
    return build_index(load(trained_run), dataset, "train", tmp_path_factory.mktemp("built") / "index", batch_size=16)


@pytest.fixture
def copy(index, tmp_path):
    return shutil.copytree(index.path, tmp_path / "copy")


def small_index(path, features):
    images = [IndexedImage(f"{i}", "a") for i in range(len(features))]
    with create_index(path, IndexMetadata(*features.shape)) as writer:
        writer.add(features, images)
    return Index(path)


def test_index_contains_the_outputs_of_the_last_hidden_layer(trained_run, dataset, index):
    predictions = Predictor(load(trained_run), layer="fc6/relu", batch_size=16).predict_split(dataset, "train")
    features = np.load(index.path / "features.npy")
    np.testing.assert_array_equal(features, predictions.outputs)
    assert features.std(axis=0).max() > 0
    assert (features >= 0).all()
    images = index.images(range(80))
    assert {image.label for image in images.values()} == {"above", "below"}
    assert [dataset.manifest.classes.index(images[i].label) for i in range(80)] == predictions.labels.tolist()
    assert len({image.name for image in images.values()}) == 80


def test_index_does_not_depend_on_devices(trained_run, dataset, tmp_path):
    """The last of three batches of the 22 images is smaller."""
    model = load(trained_run)
    one, two = (
        build_index(model, dataset, "validation", tmp_path / f"{devices}", batch_size=8, devices=devices) for devices in (1, 2)
    )
    features = [np.load(each.path / "features.npy") for each in (one, two)]
    np.testing.assert_allclose(features[1], features[0], rtol=1e-5, atol=1e-6)
    assert one.metadata == two.metadata
    assert one.images(range(22)) == two.images(range(22))


def test_search_over_several_blocks_equals_brute_force(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK_BYTES", 4 * 3 * 7)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    index = small_index(tmp_path / "index", features)
    assert [len(block) for block in index.blocks()] == [7, 7, 7, 7, 7, 5]
    neighbors = index.search(features[:9], 6)
    expected, distances = brute_force(features[:9], features, 6)
    np.testing.assert_array_equal(neighbors.indices, expected)
    np.testing.assert_array_equal(neighbors.distances, distances)
    assert index.search(features[:2], 100).indices.shape == (2, 40)


def test_blocks_and_rows_are_the_features(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK_BYTES", 4 * 3 * 7)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    index = small_index(tmp_path / "index", features)
    np.testing.assert_array_equal(np.concatenate([block.copy() for block in index.blocks()]), features)
    for indices in (rng.permutation(40), np.array([39, 0, 39]), np.array([], int)):
        np.testing.assert_array_equal(index.rows(indices), features[indices])
        norms = index.norms(indices)
        assert norms is not None
        np.testing.assert_allclose(norms, np.square(features[indices], dtype=float).sum(axis=1), rtol=1e-15)
    threads = threading.active_count()
    for _ in index.blocks():
        break
    gc.collect()
    assert threading.active_count() == threads, "the thread that reads the next block has ended"


def test_names_are_found_by_index(tmp_path):
    images = [IndexedImage("ä" * number + '\n"' * (number % 3), str(number)) for number in range(50)]
    with create_index(tmp_path / "index", IndexMetadata(50, 2)) as writer:
        for start in range(0, 50, 8):
            writer.add(np.zeros((len(images[start : start + 8]), 2), np.float32), images[start : start + 8])
    index = Index(tmp_path / "index")
    assert index.images(range(50)) == dict(enumerate(images))
    assert index.images(np.array([[49, 0], [7, 7]])) == {49: images[49], 0: images[0], 7: images[7]}
    ends = np.load(tmp_path / "index" / "line_ends.npy")
    ends[7] += 3
    np.save(tmp_path / "index" / "line_ends.npy", ends)
    with pytest.raises(UserError, match=r"is damaged .*line_ends.npy"):
        Index(tmp_path / "index").images([7])


def test_index_of_format_2_is_read(copy, index, capsys, trained_run, dataset):
    (copy / "squared_norms.npy").unlink()
    (copy / "line_ends.npy").unlink()
    (copy / "index.json").write_text((copy / "index.json").read_text().replace('"format": 3', '"format": 2'))
    old, queries = Index(copy), index.rows(np.arange(5)) + 0.1
    found, expected = old.search(queries, 6), index.search(queries, 6)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert old.images([79, 3]) == index.images([79, 3])
    assert build_index(load(trained_run), dataset, "train", copy, batch_size=16).metadata.format == 2
    assert "is already complete" in capsys.readouterr().err


def test_complete_index_is_opened_and_another_one_is_kept(trained_run, dataset, index, tmp_path, capsys):
    model, time = load(trained_run), (index.path / "features.npy").stat().st_mtime_ns
    assert build_index(model, dataset, "train", index.path, batch_size=16).metadata == index.metadata
    assert "is already complete" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"is the index of the train images of .* at step 60: pass another folder as --to"):
        build_index(model, dataset, "validation", index.path)
    assert (index.path / "features.npy").stat().st_mtime_ns == time
    (tmp_path / "mine").write_text("notes")
    with pytest.raises(UserError, match=r"mine exists and is not a complete index: pass another folder as --to$"):
        build_index(model, dataset, "train", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "notes"


def test_index_of_other_parameters_is_rejected(index, copy, trained_run, tmp_path):
    assert load_indexed_model(Index(copy), trained_run).step == index.metadata.step
    metadata = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**metadata, "parameters": "0" * 64}))
    with pytest.raises(UserError, match=r"copy was built from different parameters than .* at step 60: rebuild the index"):
        load_indexed_model(Index(copy))
    with pytest.raises(
        UserError, match=r"step 60 of .*/elsewhere, does not exist: if it was moved, pass its folder or file as --run"
    ):
        load_indexed_model(index, tmp_path / "elsewhere")


def test_other_data_set_is_rejected(copy, dataset):
    assert open_indexed_dataset(Index(copy)).path == dataset.path
    metadata = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**metadata, "split": "validation"}))
    with pytest.raises(UserError, match=r"has 22 validation images, but .*copy has 80"):
        open_indexed_dataset(Index(copy))
    with pytest.raises(UserError, match="is not a prepared data set"):
        open_indexed_dataset(Index(copy), copy)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("features.npy", lambda content: content[:-1], r"features.npy has 5,247 bytes, expected 5,248"),
        ("features.npy", lambda content: content[:50], "is damaged"),
        ("images.jsonl", lambda content: content + b"\n", "images.jsonl has"),
        ("index.json", lambda content: content[:-9], "is damaged"),
        ("index.json", lambda content: content.replace(b'"format": 3', b'"format": 1'), "has index format 1, expected 3"),
        ("squared_norms.npy", lambda content: content[:-1], r"cannot read .*/squared_norms.npy \(.*\): delete the folder"),
        ("squared_norms.npy", lambda content: b"", r"cannot read .*/squared_norms.npy \(.*\): delete the folder"),
        (
            "line_ends.npy",
            lambda content: content.replace(b"<i8", b"<f8"),
            "line_ends.npy has float64 of shape",
        ),
        ("line_ends.npy", lambda content: None, r"cannot read .*/line_ends.npy \(it is missing\)"),
        ("features.npy", lambda content: content.replace(b"<f4", b"<i4"), "features.npy has int32 of shape .*, expected float32"),
        ("images.jsonl", lambda content: None, r"\(images.jsonl is missing\)"),
    ],
)
def test_damaged_index_is_rejected(file, damage, message, copy):
    content = damage((copy / file).read_bytes())
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Index(copy)
    assert "\n" not in str(error.value)


def test_nothing_is_to_be_deleted_because_of_an_error_of_the_system_or_a_wrong_path(copy, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    with pytest.raises(UserError, match=r"photo.jpg is not an index .*: build an index with alexnet-jax index RUN"):
        Index(tmp_path / "photo.jpg")
    (copy / "index.json").unlink()
    (copy / "index.json").mkdir()  # a user other than root could remove a permission
    with pytest.raises(IsADirectoryError):
        Index(copy)


def test_truncation_during_a_search_is_reported(copy):
    index = Index(copy)
    os.truncate(copy / "features.npy", 4000)
    with pytest.raises(UserError, match=r"features.npy was truncated while it was read"):
        index.search(np.zeros((1, 16), np.float32), 1)


def test_index_is_created_atomically(tmp_path, rng, monkeypatch):
    features = rng.normal(size=(5, 3)).astype(np.float32)
    with pytest.raises(OSError, match="write failed"), create_index(tmp_path / "index", IndexMetadata(5, 3)) as writer:  # noqa: PT012
        writer.add(features[:2], [IndexedImage("a", "b")] * 2)
        raise OSError("write failed")
    assert list(tmp_path.iterdir()) == []
    partial = tmp_path / ".index.partial"  # left over from a killed process
    partial.mkdir()
    (partial / "features.npy").write_bytes(b"half")
    with create_index(tmp_path / "index", IndexMetadata(5, 3)) as writer:
        with pytest.raises(UserError, match="another process is building"), create_index(tmp_path / "index", IndexMetadata(5, 3)):
            pass
        writer.add(features, [IndexedImage("a\n", "b")] * 5)
    np.testing.assert_array_equal(np.load(tmp_path / "index" / "features.npy"), features)
    assert Index(tmp_path / "index").images([4]) == {4: IndexedImage("a\n", "b")}
    exists = "index exists: pass another folder as --to"
    with pytest.raises(UserError, match=exists), create_index(tmp_path / "index", IndexMetadata(5, 3)):
        pass
    monkeypatch.setattr(index_writer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    disk_full = r"not enough disk space for .*large \(4 MB needed, 0 MB free\)"
    with pytest.raises(UserError, match=disk_full), create_index(tmp_path / "large", IndexMetadata(1000, 1000)):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


def test_unknown_split_is_rejected(trained_run, dataset, tmp_path):
    with pytest.raises(UserError, match="has no split 'test': choose one of train, validation"):
        build_index(load(trained_run), dataset, "test", tmp_path / "index")


def test_last_hidden_layer_can_be_pooling_or_linear():
    convolutions = (Conv(8, name="conv1"), ReLU(), MaxPool())
    assert last_hidden_layer(Network("pooled", (*convolutions, Dense(10, name="fc10")))) == "conv1/pool"
    bottleneck = (*convolutions, Dense(12, name="fc2"), ReLU(), Dropout(), Dense(4, name="narrow"), Dense(10, name="fc3"))
    assert last_hidden_layer(Network("bottleneck", bottleneck)) == "narrow"
