"""Statistics of paired runs: against the tables of Student's t, and a table of exact sample sizes."""

import pytest

from benchmarks.paired import difference, half_width, pairs_needed, power


def test_the_interval_is_that_of_the_t_distribution() -> None:
    assert half_width(0.011, 5) == pytest.approx(2.776 * 0.011 / 5**0.5, rel=1e-3)
    assert half_width(0.011, 5, level=0.01) == pytest.approx(4.604 * 0.011 / 5**0.5, rel=1e-3)
    assert difference([0.3, 0.5], [0.2, 0.1]) == (pytest.approx(0.25), pytest.approx(12.706 * 0.15, rel=1e-3))
    assert difference([0.3], [0.2]) == (pytest.approx(0.1), None)


def test_numbers_of_pairs_are_those_of_exact_tables() -> None:
    """A standardized effect of 0.5 needs 34 pairs, and one of 0.8 needs 15 (level 5 %, power 80 %)."""
    assert (pairs_needed(1.0, 0.5), pairs_needed(1.0, 0.8)) == (34, 15)
    assert [pairs_needed(0.011, effect) for effect in (0.005, 0.010, 0.030)] == [40, 12, 4]
    assert pairs_needed(0.011, 0.010, level=0.025) > 12
    assert pairs_needed(1.0, 0.01) is None
    assert power(1.0, 0.0, 10) == pytest.approx(0.05)
