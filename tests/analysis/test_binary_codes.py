"""Tests of binary codes: Hamming-distance ranking, and recall of the autoencoder and the baselines."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.analysis import binary_codes
from alexnet_jax.analysis.binary_codes import Autoencoder, nearest_codes
from alexnet_jax.analysis.exact_search import nearest_neighbors


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments")
    return import_module("hyperplane_codes")


@pytest.mark.parametrize("bits", [8, 24, 64, 256])
@pytest.mark.parametrize("count", [1, 7, 60, 100])
def test_ranking_equals_bitwise_comparison(rng, bits, count):
    """Compare codes of few bits, with many equal distances, and of many bits."""
    codes, queries = (rng.integers(0, 2, (images, bits)).astype(bool) for images in (60, 5))
    distances = (queries[:, None] != codes[None]).sum(-1)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :count]
    found = nearest_codes(np.packbits(queries, axis=1), np.packbits(codes, axis=1), count)
    np.testing.assert_array_equal(found, expected)


@given(
    images=st.integers(1, 50),
    queries=st.integers(1, 3),
    size=st.sampled_from([1, 3, 8, 16]),
    values=st.integers(1, 4),
    count=st.integers(1, 60),
    chunk=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=200)
def test_ranking_equals_that_of_unpacked_bits(images, queries, size, values, count, chunk, seed):
    """Compare codes of few distinct values, which are at equal distances, in chunks that do not divide their number."""
    rng = np.random.default_rng(seed)
    distinct = rng.integers(0, 256, (values, size), np.uint8)
    codes, sought = (distinct[rng.integers(0, values, number)] for number in (images, queries))
    bits, sought_bits = (np.unpackbits(packed, axis=1).astype(float) for packed in (codes, sought))
    distances = np.abs(sought_bits[:, None] - bits[None]).sum(-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_codes, "CODE_CHUNK", chunk)
        found = nearest_codes(sought, codes, count)
    np.testing.assert_array_equal(found, np.argsort(distances, axis=1, kind="stable")[:, :count])


def test_codes_do_not_depend_on_the_images_encoded_with_them(rng):
    features = clusters(rng, 300)
    encode = Autoencoder(hidden=32, steps=20, batch_size=32).train(features, 24)
    codes = encode(features)
    assert codes.shape == (300, 3)
    np.testing.assert_array_equal(np.concatenate([encode(features[first : first + 7]) for first in range(0, 300, 7)]), codes)
    tensors = encode.tensors
    hidden = np.maximum((features - tensors["mean"]) / tensors["scale"] @ tensors["hidden.kernel"] + tensors["hidden.bias"], 0)
    outputs = hidden @ tensors["code.kernel"] + tensors["code.bias"]
    clear = np.abs(outputs) > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.unpackbits(codes, axis=1)[clear], (outputs > 0)[clear])


def clusters(rng, images):
    """Return rectified points in clusters on a curved low-dimensional manifold, similar to features of a network."""
    centers, projection = rng.normal(size=(40, 6)), rng.normal(size=(6, 96)) / 6**0.5
    points = centers[rng.integers(0, 40, images)] + 0.35 * rng.normal(size=(images, 6))
    return np.maximum(np.sin(2 * points) @ projection + 0.05 * rng.normal(size=(images, 96)), 0).astype(np.float32)


def recall(encode, features, queries):
    """Return the fraction of the 10 exact nearest neighbors among the first 20 by code."""
    exact = nearest_neighbors(queries, [features], 10).indices
    found = nearest_codes(encode(queries), encode(features), 20)
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])


def test_autoencoder_has_higher_recall_than_the_baselines(rng, baselines):
    features = clusters(rng, 1300)
    features, queries = features[:1200], features[1200:]
    autoencoder = Autoencoder(hidden=128, steps=800, batch_size=64, learning_rate=0.003)
    autoencoder_recall = recall(autoencoder.train(features, 32), features, queries)
    encoders = baselines.random_hyperplanes(features, 32), baselines.principal_component_signs(features, 32)
    recalls = [recall(encoder, features, queries) for encoder in encoders]
    assert autoencoder_recall > max(recalls) + 0.05
    assert min(recalls) > 0.1


def test_bits_beyond_the_principal_components_are_zero(rng, baselines):
    features = rng.normal(size=(50, 5)).astype(np.float32)
    codes = baselines.principal_component_signs(features, 16)(features)
    assert np.unpackbits(codes, axis=1)[:, 5:].max() == 0
    assert 20 < np.unpackbits(codes, axis=1)[:, 0].sum() < 30


def test_autoencoder_accepts_constant_features_and_is_deterministic():
    features = np.ones((20, 3), np.float32)
    codes = [Autoencoder(hidden=4, steps=5, batch_size=4, seed=seed).train(features, 16)(features) for seed in (0, 0, 1)]
    assert all((code == code[0]).all() for code in codes)
    np.testing.assert_array_equal(codes[0], codes[1])
    assert (codes[0] != codes[2]).any()
