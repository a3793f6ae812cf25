"""Exact nearest neighbors by Euclidean distance, for data larger than memory.

The data is read in blocks, each once. In a block, |x - q|² = |x|² - 2xq + |q|² is computed with a float32 matrix product. It
suffers from cancellation when x is close to q, so it is used with a bound of its rounding error, only to discard rows that cannot
be among the nearest. The distances of the remaining rows are computed in float64.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

QUERY_CHUNK = 64
"""Queries compared with a block at a time."""
ROW_CHUNK = 1024
"""Rows whose float64 distances are computed at a time."""

Rows = Float32[np.ndarray, "rows features"]
"""Features, one row per image."""


class Neighbors(NamedTuple):
    """Indices of the nearest rows of each query and their distances, nearest first. Ties are ordered by index."""

    indices: Int[np.ndarray, "queries neighbors"]
    distances: Float[np.ndarray, "queries neighbors"]


def nearest_neighbors(queries: Float32[np.ndarray, "queries features"], blocks: Iterable[Rows], count: int) -> Neighbors:
    """Return the nearest rows of each query, the same as a brute-force search in float64 finds.

    Besides the block, about 3 kB of memory are needed for each of its rows. With the 64 MB blocks of an index, that is less than
    200 MB in total, independent of the number of blocks.

    Args:
      queries: features to search for; finite.
      blocks: blocks of the rows to search, in order; finite. A block is not referenced after the next one is requested.
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
    """Yield for each query the rows of a block that can be among its `count` nearest.

    Args:
      queries: features to search for.
      block: rows to search.
      worst: largest squared distance among the neighbors found so far, per query.
      count: number of neighbors per query.
    """
    features = block.shape[1]
    # A float32 sum of n products has an error of at most n+1 roundings of the sum of their absolute values (Higham, Accuracy and
    # Stability of Numerical Algorithms, section 3.1), plus underflow. It is doubled because the bound itself is rounded.
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
    """Return squared distances of some rows of a block, computed in float64."""
    chunks = [rows[start : start + ROW_CHUNK] for start in range(0, len(rows), ROW_CHUNK)]
    return np.concatenate([np.square(block[chunk] - query).sum(axis=1) for chunk in chunks] or [np.empty(0)])
