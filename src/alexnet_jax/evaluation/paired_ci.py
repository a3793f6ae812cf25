"""Differences between two ways of training, from runs that share their seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PairedDifference:
    """Mean of the differences of pairs, and the ends of its 95 % confidence interval; None for less than two pairs."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """In percentage points."""
        interval = "" if self.low is None or self.high is None else f" ({100 * self.low:+.2f} to {100 * self.high:+.2f})"
        return f"{100 * self.mean:+.2f}{interval}"


def paired_difference(those: Sequence[float], these: Sequence[float]) -> PairedDifference:
    """Of `those` minus `these`, as far as both go, by Student's t.

    Examples:
      >>> print(difference([0.13, 0.14, 0.15], [0.11, 0.11, 0.12]))
      +2.67 (+1.23 to +4.10)
    """
    pairs = np.array([a - b for a, b in zip(those, these, strict=False)])
    if len(pairs) < 2:
        return PairedDifference(float(pairs.mean()), None, None)
    half = stats.t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return PairedDifference(float(pairs.mean()), float(pairs.mean() - half), float(pairs.mean() + half))
