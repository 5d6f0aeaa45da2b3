"""The search for the width of an arm of the same cost."""

import math

import pytest

from benchmarks.compare.matching import nearest_width


@pytest.mark.parametrize(("start", "wanted", "nearest"), [(0.25, 0.3, 10), (0.05, 0.29, 9), (2.0, 0.29, 9)])
def test_the_width_with_the_nearest_cost_is_found(start: float, wanted: float, nearest: int) -> None:
    """A cost that grows in steps of 1 / 32 of the width, like channels that are multiples of 8.

    For 0.3, 9 / 32 has 0.88 and 10 / 32 has 1.09 times the cost; for 0.29, they have 0.94 and 1.16 times the cost.
    """

    def cost_ratio(width: float) -> float:
        return (math.ceil(width * 32) / 32) ** 2 / wanted**2

    width, ratio = nearest_width(cost_ratio, start)
    assert math.ceil(width * 32) == nearest
    assert ratio == pytest.approx(cost_ratio(nearest / 32))


def test_nearest_means_by_the_factor() -> None:
    """Half as much is farther away than one and a half times as much."""
    width, ratio = nearest_width(lambda width: 0.55 if width <= 0.25 else 1.5, 0.25)
    assert (width, ratio) == (33 / 128, 1.5)


def test_a_cost_that_no_width_meets_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"even a width of 10 has only 0\.500 times the cost"):
        nearest_width(lambda width: 0.5, 0.25)
