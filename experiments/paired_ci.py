"""Confidence intervals for the difference between two training methods, from runs that share seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PairedDifference:
    """Mean paired difference with its 95% confidence interval.

    Attributes:
      mean: mean of the differences.
      low: lower end of the interval; None for fewer than two pairs.
      high: upper end of the interval; None for fewer than two pairs.
    """

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Format mean and interval in percentage points."""
        interval = "" if self.low is None or self.high is None else f" ({100 * self.low:+.2f} to {100 * self.high:+.2f})"
        return f"{100 * self.mean:+.2f}{interval}"


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Return the mean of `first` minus `second`, with its 95% confidence interval by Student's t-distribution.

    Args:
      first: values of one method, ordered by seed.
      second: values of the other method, ordered by seed. If the lengths differ, the rest of the longer one is ignored.

    Examples:
      >>> print(paired_difference([0.13, 0.14, 0.15], [0.11, 0.11, 0.12]))
      +2.67 (+1.23 to +4.10)
    """
    differences = np.array([a - b for a, b in zip(first, second, strict=False)])
    if len(differences) < 2:
        return PairedDifference(float(differences.mean()), None, None)
    # scipy.stats.ttest_rel gives the same interval, but warns of a loss of precision if all differences are equal.
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return PairedDifference(float(differences.mean()), float(differences.mean() - half), float(differences.mean() + half))
