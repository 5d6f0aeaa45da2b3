"""The search for the width of an arm of the same cost."""

import math

import pytest

from benchmarks.compare.matching import nearest_width


@pytest.mark.parametrize("start", [0.25, 0.05, 2.0])
def test_the_width_with_the_nearest_cost_is_found(start: float) -> None:
    """A cost that grows in steps of 1 / 32 of the width, like channels that are multiples of 8."""

    def cost_ratio(width: float) -> float:
        return (math.ceil(width * 32) / 32) ** 2 / 0.3**2

    width, ratio = nearest_width(cost_ratio, start)
    assert math.ceil(width * 32) == 10  # 9 / 32 is 0.88 times the cost, 10 / 32 is 1.09 times
    assert ratio == pytest.approx(cost_ratio(10 / 32))


def test_a_cost_that_no_width_meets_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"even a width of 10 has only 0\.500 times the cost"):
        nearest_width(lambda width: 0.5, 0.25)
