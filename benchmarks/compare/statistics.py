"""Paired differences with their intervals, of seeds and of folds.

The differences of folds are not independent, because their training images overlap. Their intervals are widened by the
correction of Nadeau and Bengio ("Inference for the generalization error", Machine Learning 52, 2003): of k folds, each holds
out 1 / k of the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from benchmarks.paired import LEVEL, half_width


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and half the width of its interval (None for a single pair)."""

    mean: float
    half: float | None
    sd: float | None  # of the differences
    pairs: int

    @property
    def limits(self) -> tuple[float, float] | None:
        """Lower and upper end of the interval."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies above or below 0, else 0."""
        if self.limits is None:
            return 0
        return int(self.limits[0] > 0) - int(self.limits[1] < 0)


def paired_difference(differences: Sequence[float], level: float = LEVEL, folds: int | None = None) -> Difference:
    """Return the mean of ``differences``, one for each pair, with its interval of confidence 1 - ``level``.

    With ``folds``, the differences are those of the folds of one data set, and the interval is corrected for their overlap.
    """
    pairs = len(differences)
    if pairs < 2:
        return Difference(differences[0], None, None, pairs)
    sd = stdev(differences)
    overlap = sqrt(1 + pairs / (folds - 1)) if folds else 1.0
    return Difference(mean(differences), overlap * half_width(sd, pairs, level), sd, pairs)


def level_of(comparisons: int, bonferroni: bool) -> float:
    """Return the level of each interval: with ``bonferroni``, all ``comparisons`` together keep 5 %."""
    return LEVEL / max(comparisons, 1) if bonferroni else LEVEL
