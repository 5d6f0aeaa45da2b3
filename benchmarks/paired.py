"""Statistics of paired runs: the interval of a mean difference, and the number of pairs that a study needs.

Two runs are a pair if they share the seed, and with it data order, augmentation and common weights. scipy is installed with
albumentations.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from statistics import mean, stdev

import numpy as np
from scipy.stats import chi2, norm, t

LEVEL, POWER = 0.05, 0.8
MOST_PAIRS = 1000


def half_width(sd: float, pairs: int, level: float = LEVEL) -> float:
    """Return half of the width of the interval of a mean difference with confidence 1 - ``level``; ``sd`` is of one pair."""
    return _quantile(pairs - 1, level) * sd / pairs**0.5


@cache
def _quantile(freedom: int, level: float) -> float:
    """Return the two-sided quantile of Student's t."""
    return float(t.ppf(1 - level / 2, freedom))


def difference(arm: Sequence[float], base: Sequence[float], level: float = LEVEL) -> tuple[float, float | None]:
    """Return the mean of the paired differences, and half of the width of its interval (None for a single pair)."""
    differences = [a - b for a, b in zip(arm, base, strict=True)]
    if len(differences) == 1:
        return differences[0], None
    return mean(differences), half_width(stdev(differences), len(differences), level)


def power(sd: float, effect: float, pairs: int, level: float = LEVEL) -> float:
    """Return the probability that a two-sided paired t-test finds ``effect``, by the exact noncentral t distribution.

    The distribution is an integral over the estimated standard deviation: that of scipy gives NaN in its tails.
    """
    freedom, shift = pairs - 1, effect / sd * pairs**0.5
    limit = _quantile(freedom, level)
    scores = np.linspace(-7, 7, 401)  # normal scores: they have few values beyond
    weights = norm.pdf(scores) * (scores[1] - scores[0])
    estimates = np.sqrt(chi2.ppf(norm.cdf(scores), freedom) / freedom)  # as multiples of the true standard deviation
    return float(weights @ (norm.sf(limit * estimates - shift) + norm.cdf(-limit * estimates - shift)))


def pairs_needed(sd: float, effect: float, level: float = LEVEL, least_power: float = POWER) -> int | None:
    """Return the least number of pairs with ``least_power`` to find ``effect``; None if 1,000 are not enough."""
    if sd == 0:  # every pair has the same difference
        return 2 if effect else None
    numbers = range(2, MOST_PAIRS + 1)
    index = bisect_left(numbers, least_power, key=lambda n: power(sd, effect, n, level))  # power grows with n
    return numbers[index] if index < len(numbers) else None
