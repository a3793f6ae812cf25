"""Exact nearest-neighbor search by Euclidean distance, for data larger than memory.

The data is read in blocks, each once. For each block, |x - q|² = |x|² - 2xq + |q|² is computed with a float32 matrix product.
This formula suffers from cancellation when x is close to q, so it is used only to discard rows that, given a bound on its
rounding error, cannot be among the nearest. The distances of the remaining rows are computed in float64.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

QUERY_CHUNK = 64
"""Number of queries compared with a block at a time."""
ROW_CHUNK = 1024
"""Number of rows whose float64 distances are computed at a time."""

Rows = Float32[np.ndarray, "rows features"]
"""Features, one row per image."""


class Neighbors(NamedTuple):
    """Nearest rows of each query, nearest first, with ties ordered by index.

    Attributes:
      indices: indices of the rows.
      distances: Euclidean distances of the rows from the query.
    """

    indices: Int[np.ndarray, "queries neighbors"]
    distances: Float[np.ndarray, "queries neighbors"]


def nearest_neighbors(queries: Float32[np.ndarray, "queries features"], blocks: Iterable[Rows], count: int) -> Neighbors:
    """Return the nearest rows of each query, identical to the result of a brute-force search in float64.

    Besides the block itself, the search needs about 3 kB of memory for each row of a block. With the 64 MB blocks of an index,
    the total is less than 200 MB, regardless of the number of blocks.

    Args:
      queries: features to search for; must be finite.
      blocks: blocks of the rows to search, in index order; must be finite. A block is not used after the next one is requested.
      count: number of neighbors per query, at least 1; all rows are returned if there are fewer.
    """
    best_indices = np.full((len(queries), count), np.iinfo(np.int64).max)
    best = np.full((len(queries), count), np.inf)  # squared distances
    exact = queries.astype(np.float64)
    first = 0
    for block in blocks:
        for start in range(0, len(queries), QUERY_CHUNK):
            chunk = slice(start, start + QUERY_CHUNK)
            for query, rows in enumerate(_candidates(queries[chunk], block, best[chunk, -1], count), start):
                distances = np.concatenate([best[query], _squared_distances(block, rows, exact[query])])
                indices = np.concatenate([best_indices[query], first + rows])
                order = np.lexsort((indices, distances))[:count]
                best[query], best_indices[query] = distances[order], indices[order]
        first += len(block)
    num_neighbors = min(count, first)
    return Neighbors(best_indices[:, :num_neighbors], np.sqrt(best[:, :num_neighbors]))


def _candidates(
    queries: Float32[np.ndarray, "queries features"], block: Rows, worst: Float[np.ndarray, " queries"], count: int
) -> Iterator[Int[np.ndarray, " candidates"]]:
    """Yield, for each query, the rows of a block that may be among its `count` nearest.

    Args:
      queries: features to search for.
      block: rows to search.
      worst: largest squared distance among the neighbors found so far, per query.
      count: number of neighbors per query.
    """
    features = block.shape[1]
    # The error of a float32 sum of n products is at most n + 1 rounding errors of the sum of their absolute values (Higham,
    # Accuracy and Stability of Numerical Algorithms, section 3.1), plus underflow. The bound is doubled because computing it also
    # rounds.
    rounding = 2 * (features + 2) * float(np.finfo(np.float32).eps)
    underflow = 4 * features * float(np.finfo(np.float32).tiny)
    with np.errstate(over="ignore", invalid="ignore"):
        row_norms = np.einsum("ij,ij->i", block, block).astype(np.float64)
        query_norms = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)[:, None]
        squares = row_norms - 2 * (queries @ block.T).astype(np.float64) + query_norms
        error = rounding * (row_norms + 2 * np.sqrt(row_norms * query_norms)) + underflow
        error[~np.isfinite(squares)] = np.inf  # overflow: the distance is unknown
        if len(block) >= count:  # `count` rows of this block have at most this squared distance
            worst = np.minimum(worst, np.partition(squares + error, count - 1)[:, count - 1])
        candidates = ~(squares - error > worst[:, None])  # true for NaN
    for query_candidates in candidates:
        yield np.flatnonzero(query_candidates)


def _squared_distances(
    block: Rows, rows: Int[np.ndarray, " candidates"], query: Float[np.ndarray, " features"]
) -> Float[np.ndarray, " candidates"]:
    """Return the squared distances of the given rows of a block from a query, computed in float64."""
    chunks = [rows[start : start + ROW_CHUNK] for start in range(0, len(rows), ROW_CHUNK)]
    return np.concatenate([np.square(block[chunk] - query).sum(axis=1) for chunk in chunks] or [np.empty(0)])
