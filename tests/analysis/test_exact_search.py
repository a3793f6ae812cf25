"""Tests that exact search equals brute-force search in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.analysis import exact_search
from alexnet_jax.analysis.exact_search import nearest_neighbors, squared_norms


def brute_force(queries, rows, count):
    squares = np.square(rows.astype(np.float64)[None] - queries.astype(np.float64)[:, None]).sum(-1)
    order = np.argsort(squares, axis=1, kind="stable")[:, :count]
    return order, np.sqrt(np.take_along_axis(squares, order, axis=1))


def blocks(rows, size):
    return (rows[start : start + size] for start in range(0, len(rows), size))


def assert_exact(queries, rows, count, size):
    neighbors = nearest_neighbors(queries, blocks(rows, size), count)
    expected, distances = brute_force(queries, rows, count)
    np.testing.assert_array_equal(neighbors.indices, expected)
    np.testing.assert_array_equal(neighbors.distances, distances)
    with_norms = nearest_neighbors(queries, blocks(rows, size), count, squared_norms(rows))
    np.testing.assert_array_equal(with_norms.indices, expected)


@given(
    rows=st.integers(0, 40),
    features=st.integers(1, 5),
    queries=st.integers(1, 3),
    count=st.integers(1, 8),
    size=st.integers(1, 11),
    values=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=200)
def test_equals_brute_force_with_many_ties(rows, features, queries, count, size, values, seed):
    """Check rows with few distinct values, which repeat within and across blocks, and fewer rows than requested or none."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, values + 1, (rows + queries, features)).astype(np.float32)
    assert_exact(numbers[rows:], numbers[:rows], count, size)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_equals_brute_force_with_random_rows(rng, scale):
    """Check scales at which squares underflow or overflow in float32."""
    rows = (rng.normal(size=(700, 96)) * scale).astype(np.float32)
    assert_exact(np.concatenate([rows[::70], rows[:90] + rows[1:91]]), rows, 6, 128)


def test_rows_indistinguishable_in_float32(rng):
    """Check rows far from zero and close to each other, for which cancellation makes |x|² - 2xq + |q|² useless."""
    rows = (1e4 + rng.normal(size=(500, 64)) / 100).astype(np.float32)
    naive = (rows**2).sum(1) - 2 * rows @ rows[3] + (rows[3] ** 2).sum()
    expected, _ = brute_force(rows[3:4], rows, 6)
    assert not np.array_equal(np.argsort(naive, kind="stable")[:6], expected[0]), "the test data is too easy"
    assert_exact(rows[:20], rows, 6, 100)


@pytest.mark.parametrize("position", [0, 650])
def test_one_row_whose_products_overflow(rng, position):
    """Check that a row that is too long for float32 products neither hides others nor is hidden."""
    rows = rng.normal(size=(700, 96)).astype(np.float32)
    rows[position] = 3e38 * np.sign(rows[position])
    queries = np.stack([rows[300], rows[position], rows[position] / 2, -rows[position]])
    assert_exact(queries, rows, 6, 128)


def test_few_distances_are_computed_in_float64(rng, monkeypatch):
    """Check that the bound of the rounding error is tight enough for most rows to be discarded."""
    rows = np.maximum(rng.normal(size=(4000, 512)), 0).astype(np.float32)
    computed, compute = [], exact_search._squared_distances
    monkeypatch.setattr(
        exact_search, "_squared_distances", lambda block, rows, query: computed.append(len(rows)) or compute(block, rows, query)
    )
    assert_exact(rows[:5] + 0.5, rows, 6, 500)
    assert sum(computed) < 2 * 5 * 100  # both searches of `assert_exact`


def test_equal_rows_are_ordered_by_index():
    rows = np.ones((3000, 4), np.float32)
    assert_exact(np.zeros((2, 4), np.float32), rows, 5, 2048)


@pytest.mark.parametrize(("query", "count"), [(np.nan, 1), (np.inf, 1), (1.0, 0)])
def test_queries_without_nearest_rows_raise(query, count):
    with pytest.raises(ValueError, match="finite queries and a count of at least 1"):
        nearest_neighbors(np.full((1, 2), query, np.float32), [np.ones((3, 2), np.float32)], count)
