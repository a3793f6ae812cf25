"""The exact nearest neighbors by Euclidean distance, among more rows than fit into memory.

Rows come in blocks, each looked at once. A product of float32 matrices says which rows of a block can be among the nearest:
|x - q|² = |x|² - 2xq + |q|² loses its digits where x is near q, so it comes with a bound of what rounding can have done, and no
row is left out that might be nearer than those that stay. These few are subtracted and squared in float64, and that counts.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

QUERIES = 64  # that are compared with a block at once
ROWS = 1024  # that are compared in float64 at once

Rows = Float32[np.ndarray, "rows features"]
"""Features of images, a row for each."""


class Nearest(NamedTuple):
    """For each query the numbers of its nearest rows, nearest first, the lower number where two are equally near, and their
    distances."""

    rows: Int[np.ndarray, "queries found"]
    distances: Float[np.ndarray, "queries found"]


def nearest(queries: Float32[np.ndarray, "queries features"], blocks: Iterable[Rows], count: int) -> Nearest:
    """The `count` nearest rows of each query, or all if there are fewer: what comparing each with each in float64 would find.

    Memory: that of a block, and for each of its rows some 3 kB. Blocks of 64 MB, which is what an index comes in, take less
    than 200 MB, however many there are.

    Args:
      queries: what is looked for; finite.
      blocks: what is searched, one block after the other; finite. A block is not kept.
      count: how many are wanted of each query, 1 or more.
    """
    best_rows = np.full((len(queries), count), np.iinfo(np.int64).max)
    best = np.full((len(queries), count), np.inf)  # squares of distances
    exact = queries.astype(np.float64)
    first = 0
    for block in blocks:
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            for query, near in enumerate(_candidates(queries[part], block, best[part, -1], count), start):
                distances = np.concatenate([best[query], _squares(block, near, exact[query])])
                rows = np.concatenate([best_rows[query], first + near])
                order = np.lexsort((rows, distances))[:count]
                best[query], best_rows[query] = distances[order], rows[order]
        first += len(block)
    found = min(count, first)
    return Nearest(best_rows[:, :found], np.sqrt(best[:, :found]))


def _candidates(
    queries: Float32[np.ndarray, "queries features"], block: Rows, worst: Float[np.ndarray, " queries"], count: int
) -> Iterator[Int[np.ndarray, " candidates"]]:
    """For each query the rows of a block that may be among its `count` nearest, whose squares are at most `worst` so far."""
    features = block.shape[1]
    # A float32 sum of n products is off by at most n+1 roundings of the sum of their sizes (Higham, Accuracy and Stability of
    # Numerical Algorithms, section 3.1), plus what is too small for a number. Doubled: the bound is rounded itself.
    rounding = 2 * (features + 2) * float(np.finfo(np.float32).eps)
    tiny = 4 * features * float(np.finfo(np.float32).tiny)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.einsum("ij,ij->i", block, block).astype(np.float64)
        of_queries = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)[:, None]
        squares = lengths - 2 * (queries @ block.T).astype(np.float64) + of_queries
        doubt = rounding * (lengths + 2 * np.sqrt(lengths * of_queries)) + tiny
        doubt[~np.isfinite(squares)] = np.inf  # too large for float32, so nothing is known
        if len(block) >= count:  # so many are certainly as near as this
            worst = np.minimum(worst, np.partition(squares + doubt, count - 1)[:, count - 1])
        candidates = ~(squares - doubt > worst[:, None])  # where it is no number, too
    for of_query in candidates:
        yield np.flatnonzero(of_query)


def _squares(block: Rows, rows: Int[np.ndarray, " some"], query: Float[np.ndarray, " features"]) -> Float[np.ndarray, " some"]:
    """Squared distances, as exact as float64 has them."""
    parts = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    return np.concatenate([np.square(block[part] - query).sum(axis=1) for part in parts] or [np.empty(0)])
