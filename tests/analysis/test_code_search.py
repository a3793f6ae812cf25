"""Tests of search by binary codes, and of building, storing and validating the codes of an index."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from alexnet_jax.analysis import code_search, exact_search
from alexnet_jax.analysis import index as index_module
from alexnet_jax.analysis.binary_codes import Autoencoder, PerceptronEncoder
from alexnet_jax.analysis.code_search import build_codes, read_codes, search_by_codes
from alexnet_jax.analysis.index import Index
from alexnet_jax.errors import UserError
from alexnet_jax.files import lock_file
from tests.analysis.test_binary_codes import clusters
from tests.analysis.test_index import small_index

AUTOENCODER = Autoencoder(hidden=16, steps=30, batch_size=32)


@pytest.fixture(scope="module")
def features():
    return clusters(np.random.default_rng(0), 300)


@pytest.fixture
def index(tmp_path, features):
    return small_index(tmp_path / "index", features)


def content(index):
    """Return the names and sizes of the files in the folder of an index."""
    return {file.name: file.stat().st_size for file in index.path.iterdir()}


def stored_codes(index):
    """Return the codes of an index that has some."""
    codes = read_codes(index)
    assert codes is not None
    return codes


def test_with_all_images_as_candidates_equals_exact_search(index, features, monkeypatch):
    monkeypatch.setattr(code_search, "ROWS_READ", 130)
    codes = build_codes(index, 16, AUTOENCODER)
    queries = np.concatenate([features[:20] + features[100:120], features[:3]])
    for count in (6, 400):
        found, exact = search_by_codes(index, codes, queries, count, candidates=300), index.search(queries, count)
        np.testing.assert_array_equal(found.indices, exact.indices)
        np.testing.assert_array_equal(found.distances, exact.distances)


def test_neighbors_are_the_nearest_of_the_candidates(index, features):
    codes = build_codes(index, 16, AUTOENCODER)
    query = features[5:6] + features[50:51]
    bits = np.unpackbits(codes.codes, axis=1).astype(int)
    hamming = np.abs(bits - np.unpackbits(codes.encoder(query), axis=1).astype(int)).sum(axis=1)
    candidates = np.argsort(hamming, kind="stable")[:40]
    distances = np.linalg.norm(features[candidates].astype(float) - query.astype(float), axis=1)
    found = search_by_codes(index, codes, query, 6, candidates=40)
    np.testing.assert_array_equal(found.indices[0], candidates[np.argsort(distances)[:6]])
    np.testing.assert_allclose(found.distances[0], np.sort(distances)[:6], rtol=1e-12)
    assert search_by_codes(index, codes, query, 6, candidates=1).indices.shape == (1, 6)


def test_only_the_candidates_are_read(index, features, monkeypatch):
    codes, read = build_codes(index, 16, AUTOENCODER), []
    monkeypatch.setattr(index, "blocks", lambda: pytest.fail("all features are read"))
    monkeypatch.setattr(exact_search, "squared_norms", lambda rows: read.append(len(rows)) or np.square(rows, dtype=float).sum(1))
    search_by_codes(index, codes, features[:1], 6, candidates=40)
    assert read == [1], "the norms of the rows are stored"


def test_building_in_blocks_equals_building_at_once(tmp_path, features, monkeypatch):
    files = []
    for rows in (300, 7):
        monkeypatch.setattr(index_module, "BLOCK_BYTES", 4 * features.shape[1] * rows)
        index = small_index(tmp_path / str(rows), features)
        assert index.num_blocks == -(-300 // rows)
        build_codes(index, 16, AUTOENCODER)
        files.append(load_file(index.path / "codes.safetensors"))
    assert files[0].keys() == files[1].keys()
    for name, tensor in files[0].items():
        np.testing.assert_array_equal(tensor, files[1][name])


def test_stored_codes_equal_those_that_were_built(index, features, capsys):
    assert read_codes(index) is None
    built = build_codes(index, 16, AUTOENCODER)
    stored = stored_codes(Index(index.path))
    np.testing.assert_array_equal(stored.codes, built.codes)
    np.testing.assert_array_equal(stored.codes, built.encoder(features))
    np.testing.assert_array_equal(stored.encoder(features[:9]), built.codes[:9])
    time = (index.path / "codes.safetensors").stat().st_mtime_ns
    build_codes(index, 16, AUTOENCODER)
    assert "codes.safetensors is already complete" in capsys.readouterr().err
    assert (index.path / "codes.safetensors").stat().st_mtime_ns == time
    assert build_codes(index, 8, AUTOENCODER).codes.shape == (300, 1)
    assert stored_codes(index).encoder.bits == 8


@pytest.mark.parametrize(("owner", "method"), [(Autoencoder, "train"), (PerceptronEncoder, "__call__"), (type(Path()), "rename")])
@pytest.mark.parametrize("earlier", [False, True], ids=["without codes", "with other codes"])
def test_interruption_leaves_the_index_unchanged(owner, method, earlier, index, monkeypatch):
    if earlier:
        build_codes(index, 8, AUTOENCODER)
    before = content(index)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_codes(index, 16, AUTOENCODER)
    assert content(index) == before
    codes = read_codes(index)
    assert (codes is not None) == earlier
    assert codes is None or codes.encoder.bits == 8
    (index.path / ".codes.safetensors.partial").write_bytes(b"of a killed process")
    assert build_codes(index, 16, AUTOENCODER).encoder.bits == 16
    assert set(content(index)) == {*before, "codes.safetensors"}


def test_only_one_process_builds_codes(index):
    with (
        lock_file(index.path / "index.json", "locked"),
        pytest.raises(UserError, match=r"another process is building .*codes.safetensors: wait until it is finished"),
    ):
        build_codes(index, 16, AUTOENCODER)
    assert Index(index.path).metadata == index.metadata


@pytest.mark.parametrize("bits", [0, 12, -8, 8192])
def test_invalid_lengths_are_refused(bits, index):
    with pytest.raises(UserError, match="--bits must be"):
        build_codes(index, bits, AUTOENCODER)
    assert read_codes(index) is None


def change(**changes):
    """Return a function that rewrites a file with other tensors, and metadata that match them."""

    def rewrite(file, metadata):
        tensors = load_file(file) | changes
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(tensors, file, {**metadata, "checksum": code_search.params_digest(tensors)})

    return rewrite


def change_metadata(**changes):
    return lambda file, metadata: save_file(load_file(file), file, metadata | changes)


def flip_bit(file, metadata):
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file, metadata: os.truncate(file, file.stat().st_size - 1), "cannot read"),
        (lambda file, metadata: file.write_bytes(b""), "cannot read"),
        (flip_bit, r"is damaged \(the checksum does not match\)"),
        (change_metadata(format="2"), "has version 2 of the format, expected 1"),
        (change_metadata(index="0"), "contains the codes of another index"),
        (change_metadata(layout="alexnet-jax"), "contains no codes of an index"),
        (change(codes=np.zeros((299, 2), np.uint8)), r"uint8 codes of shape \(299, 2\) from 96 features, expected uint8"),
        (change(codes=np.zeros((300, 2), np.float32)), "has float32 codes"),
        (change(codes=None), "expected uint8"),
        (change(scale=None), "scale is missing or not float32"),
        (change(**{"code.bias": np.zeros(8, np.float32)}), "code.bias has 8 bits, expected 16"),
    ],
)  # fmt: skip
def test_invalid_codes_are_refused_and_built_again(damage, message, index, features, capsys):
    build_codes(index, 16, AUTOENCODER)
    file = index.path / "codes.safetensors"
    original = load_file(file)
    with safe_open(file, framework="numpy") as tensors:
        metadata = tensors.metadata()
    damage(file, metadata)
    with pytest.raises(UserError, match=message) as error:
        read_codes(index)
    assert "\n" not in str(error.value)
    assert re.search(r"codes\.safetensors.*: .*delete it, or build the codes again with alexnet-jax index", str(error.value))
    build_codes(index, 16, AUTOENCODER)
    assert "building them again" in capsys.readouterr().err
    np.testing.assert_array_equal(stored_codes(index).codes, original["codes"])


def test_autoencoder_is_trained_on_a_sample(index, features, monkeypatch):
    trained_on = []
    monkeypatch.setattr(code_search, "TRAINING_IMAGES", 50)
    train = Autoencoder.train
    monkeypatch.setattr(Autoencoder, "train", lambda self, rows, bits: trained_on.append(rows) or train(self, rows, bits))
    assert build_codes(index, 8, AUTOENCODER).codes.shape == (300, 1)
    (rows,) = trained_on
    positions = [int(np.flatnonzero((features == row).all(axis=1))[0]) for row in rows]
    assert len(set(positions)) == 50
    assert positions == sorted(positions)
    assert max(positions) > 200
