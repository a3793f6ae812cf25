"""Exact nearest-neighbor search by Euclidean distance, for data larger than memory.

The data is read in blocks, each once. For each block, |x - q|² = |x|² - 2xq + |q|² is computed with a float32 matrix product.
This formula suffers from cancellation when x is close to q, so it is used only to discard rows that, given a bound on its
rounding error, cannot be among the nearest. The distances of the remaining rows, which are few, are computed in float64.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

QUERY_CHUNK = 64
"""Number of queries compared with a block at a time."""
ROW_CHUNK = 1024
"""Number of rows whose float64 distances are computed at a time."""
CACHED_NUMBERS = 1 << 16
"""Number of float64 numbers that fit in the cache of a CPU core."""

Rows = Float32[np.ndarray, "rows features"]
"""Features, one row per image."""
SquaredNorms = Float64[np.ndarray, " rows"]
"""Squared Euclidean norms of rows."""


class Neighbors(NamedTuple):
    """Nearest rows of each query, nearest first, with ties ordered by index.

    Attributes:
      indices: indices of the rows.
      distances: Euclidean distances of the rows from the query.
    """

    indices: Int[np.ndarray, "queries neighbors"]
    distances: Float[np.ndarray, "queries neighbors"]


def nearest_neighbors(
    queries: Float32[np.ndarray, "queries features"], blocks: Iterable[Rows], count: int, norms: SquaredNorms | None = None
) -> Neighbors:
    """Return the nearest rows of each query, identical to the result of a brute-force search in float64.

    Besides the block itself, the search needs about 1 kB of memory for each row of a block, and 8 bytes per feature for each of
    `ROW_CHUNK` rows, regardless of the number of blocks.

    Args:
      queries: features to search for; must be finite.
      blocks: blocks of the rows to search, in index order; must be finite. A block is not used after the next one is requested.
      count: number of neighbors per query, at least 1; all rows are returned if there are fewer.
      norms: squared norms of all rows, see `squared_norms`; None computes them.

    Raises:
      ValueError: if a query is not finite, or the count is under 1.
    """
    exact, query_norms = queries.astype(np.float64), squared_norms(queries)
    if count < 1 or not np.isfinite(query_norms).all():
        raise ValueError(f"nearest_neighbors requires finite queries and a count of at least 1, got a count of {count}")
    best_indices = np.full((len(queries), count), np.iinfo(np.int64).max)
    best = np.full((len(queries), count), np.inf)  # squared distances
    first = 0
    for block in blocks:
        block_norms = squared_norms(block) if norms is None else norms[first : first + len(block)]
        for start in range(0, len(queries), QUERY_CHUNK):
            chunk = slice(start, start + QUERY_CHUNK)
            candidates = _candidates(queries[chunk], query_norms[chunk], block, block_norms, best[chunk, -1], count)
            for query, rows in ((start + row, rows) for row, rows in candidates.items()):
                distances = np.concatenate([best[query], _squared_distances(block, rows, exact[query])])
                indices = np.concatenate([best_indices[query], first + rows])
                order = np.lexsort((indices, distances))[:count]
                best[query], best_indices[query] = distances[order], indices[order]
        first += len(block)
    num_neighbors = min(count, first)
    return Neighbors(best_indices[:, :num_neighbors], np.sqrt(best[:, :num_neighbors]))


def squared_norms(rows: Rows) -> SquaredNorms:
    """Return the squared norms of rows, computed in float64."""
    norms = np.empty(len(rows))
    size = max(1, CACHED_NUMBERS // max(1, rows.shape[1]))
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size].astype(np.float64)
        norms[start : start + size] = np.vecdot(chunk, chunk)
    return norms


def _candidates(
    queries: Float32[np.ndarray, "queries features"],
    query_norms: Float64[np.ndarray, " queries"],
    block: Rows,
    norms: SquaredNorms,
    worst: Float[np.ndarray, " queries"],
    count: int,
) -> dict[int, Int[np.ndarray, " candidates"]]:
    """Return the rows of a block that may be among the `count` nearest of a query, for each query for which there are any.

    `worst` has the largest squared distance among the neighbors of each query found so far.
    """
    features, longest = block.shape[1], norms.max(initial=0)
    # The error of a float32 sum of n products is at most n eps / (2 - n eps) times the sum of their absolute values (Higham,
    # Accuracy and Stability of Numerical Algorithms, section 3.1), which is at most |x||q|, plus underflow. The last term is the
    # error of the norms and of the distances that are compared in the end, which are computed in float64.
    largest = np.sqrt(query_norms * longest)
    single, double = np.finfo(np.float32), np.finfo(np.float64)
    error = features * single.eps * largest + 4 * features * single.tiny
    error += 4 * (features + 4) * double.eps * (query_norms + longest)
    error[largest > single.max / 2] = np.inf  # a product may overflow
    found: dict[int, Int[np.ndarray, " candidates"]] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        products = queries @ block.T
        # |x - q|² <= worst if and only if xq >= |x|²/2 + (|q|² - worst)/2
        candidates = ~(products < norms / 2 + ((query_norms - worst) / 2 - error)[:, None])  # true for NaN
        for query in np.flatnonzero(candidates.any(axis=1)).tolist():
            rows = np.flatnonzero(candidates[query])
            if len(rows) > count:  # `count` of them are at most this far away
                halves = norms[rows] / 2 - products[query, rows]  # (|x - q|² - |q|²)/2
                within = np.partition(halves, count - 1)[count - 1] + 2 * error[query]
                rows = rows[~(halves > within)]  # true for NaN
            found[query] = rows
    return found


def _squared_distances(
    block: Rows, rows: Int[np.ndarray, " candidates"], query: Float64[np.ndarray, " features"]
) -> Float64[np.ndarray, " candidates"]:
    """Return the squared distances of the given rows of a block from a query, computed in float64."""
    chunks = [rows[start : start + ROW_CHUNK] for start in range(0, len(rows), ROW_CHUNK)]
    return np.concatenate([np.square(block[chunk] - query).sum(axis=1) for chunk in chunks] or [np.empty(0)])
