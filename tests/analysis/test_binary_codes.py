"""Binary codes: counting bits, and what an autoencoder is worth."""

import numpy as np
import pytest

from alexnet_jax.analysis.binary_codes import Autoencoder, nearest_codes, principal_signs, random_hyperplanes
from alexnet_jax.analysis.exact_search import nearest


@pytest.mark.parametrize("bits", [8, 24, 64, 256])
@pytest.mark.parametrize("count", [1, 7, 60, 100])
def test_ranking_as_comparing_bit_by_bit(rng, bits, count):
    """Of few bits, where most are tied, and of many."""
    codes, queries = (rng.integers(0, 2, (images, bits)).astype(bool) for images in (60, 5))
    different = (queries[:, None] != codes[None]).sum(-1)
    expected = np.argsort(different, axis=1, kind="stable")[:, :count]
    found = nearest_codes(np.packbits(queries, axis=1), np.packbits(codes, axis=1), count)
    np.testing.assert_array_equal(found, expected)


def clusters(rng, images):
    """Rectified points about centers that lie on a few curved dimensions of many: features as networks make them."""
    centers, out = rng.normal(size=(40, 6)), rng.normal(size=(6, 96)) / 6**0.5
    places = centers[rng.integers(0, 40, images)] + 0.35 * rng.normal(size=(images, 6))
    return np.maximum(np.sin(2 * places) @ out + 0.05 * rng.normal(size=(images, 96)), 0).astype(np.float32)


def recall(encode, features, queries):
    """The share of the 10 nearest among the first 20 by their codes."""
    exact = nearest(queries, [features], 10).rows
    found = nearest_codes(encode(queries), encode(features), 20)
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])


def test_an_autoencoder_beats_codes_that_have_learned_nothing(rng):
    features = clusters(rng, 1300)
    features, queries = features[:1200], features[1200:]
    autoencoder = Autoencoder(hidden=128, steps=800, batch_size=64, rate=0.003)
    learned = recall(autoencoder.train(features, 32), features, queries)
    others = [recall(of(features, 32), features, queries) for of in (random_hyperplanes, principal_signs)]
    assert learned > max(others) + 0.05
    assert min(others) > 0.1


def test_more_bits_than_components_are_left_zero(rng):
    features = rng.normal(size=(50, 5)).astype(np.float32)
    codes = principal_signs(features, 16)(features)
    assert np.unpackbits(codes, axis=1)[:, 5:].max() == 0
    assert 20 < np.unpackbits(codes, axis=1)[:, 0].sum() < 30


def test_features_that_never_vary_do_no_harm_and_the_seed_decides():
    features = np.ones((20, 3), np.float32)
    codes = [Autoencoder(hidden=4, steps=5, batch_size=4, seed=seed).train(features, 16)(features) for seed in (0, 0, 1)]
    assert all((of == of[0]).all() for of in codes)
    np.testing.assert_array_equal(codes[0], codes[1])
    assert (codes[0] != codes[2]).any()
