"""Intervals of paired differences: by hand, and their coverage on made-up results."""

import numpy as np
import pytest

from benchmarks.compare.statistics import level_of, paired_difference

DRAWS = 2000
TOLERANCE = 3 * (0.05 * 0.95 / DRAWS) ** 0.5  # three standard errors of a share of 95 %


def test_an_interval_by_hand() -> None:
    difference = paired_difference([0.01, 0.02, 0.03])
    assert difference.mean == pytest.approx(0.02)
    assert difference.half == pytest.approx(4.302653 * 0.01 / 3**0.5)
    assert (difference.sign, paired_difference([-0.2, -0.21, -0.19]).sign) == (0, -1)
    assert paired_difference([0.3]).limits is None


def test_bonferroni_divides_the_level() -> None:
    assert level_of(5, bonferroni=True) == pytest.approx(0.01)
    assert level_of(5, bonferroni=False) == 0.05
    narrow, wide = (paired_difference([0.0, 1.0, 2.0, 4.0], level).half for level in (0.05, 0.01))
    assert wide / narrow == pytest.approx(5.8409 / 3.1824, rel=1e-3)  # quantiles of t with 3 degrees of freedom


@pytest.mark.parametrize(("pairs", "level"), [(2, 0.05), (5, 0.0125)])
def test_intervals_of_seeds_contain_the_true_difference_as_often_as_they_say(pairs: int, level: float) -> None:
    made_up = np.random.default_rng(0).normal(0.01, 0.02, (DRAWS, pairs))
    assert _coverage(made_up, 0.01, level) == pytest.approx(1 - level, abs=TOLERANCE)


def test_intervals_of_folds_allow_for_the_images_that_they_share() -> None:
    """The results of k folds have a correlation of 1 / k (Nadeau and Bengio). Without the correction 95 % are 80 %."""
    rng, k = np.random.default_rng(1), 5
    common = rng.normal(0, (1 / k) ** 0.5, (DRAWS, 1))
    made_up = 0.01 + 0.02 * (common + rng.normal(0, (1 - 1 / k) ** 0.5, (DRAWS, k)))
    assert _coverage(made_up, 0.01, 0.05, folds=k) == pytest.approx(0.95, abs=TOLERANCE)
    assert _coverage(made_up, 0.01, 0.05) < 0.9


def _coverage(made_up: np.ndarray, truth: float, level: float, folds: int | None = None) -> float:
    limits = [paired_difference(differences, level, folds).limits for differences in made_up.tolist()]
    return float(np.mean([low <= truth <= high for low, high in limits]))
