"""No text of a plot is cut off or lies on another one, whatever the names and numbers; colors follow the numbers."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from detector.imaging.plot_files import Plot
from detector.imaging.plots import Line, bar_plot, histogram, line_plot, matrix, shortened
from tests.detector.imaging.layout import assert_texts_inside, visible_texts
from tests.detector.imaging.samples import ALL

LONG = ["W" * 32, "a class whose name is longer than most names of classes", "猫" * 40, "قطة", "🐈 cat", "x"]


@pytest.mark.parametrize("make", ALL)
def test_texts_of_difficult_names_lie_in_the_figure(make: Callable[[], Plot]) -> None:
    assert_texts_inside(make().figure)


@pytest.mark.parametrize("names", [LONG[:1], LONG, [f"a class with a long name {n}" for n in range(81)]])
def test_texts_lie_in_the_figure_for_any_number_of_classes(names: list[str]) -> None:
    counts = np.diag(np.arange(len(names))) * 12_345
    values = {split: [n * 1e6 for n in range(len(names))] for split in ("train", "val")}
    texts = {split: [f"{number:,.0f}" for number in numbers] for split, numbers in values.items()}
    scale = ("objects, logarithmic", {0.0: "1", 1.0: "10,000,000"})
    curves = [Line(name, np.arange(3), np.array([1e6, 2e-6, 3e6])) for name in names[:7]]
    for plot in (
        matrix("m", "Matrix", counts, names, "object", "detected as"),
        bar_plot("b", "Bars", names, values, texts, scale=scale),
        line_plot("l", "Lines", curves, "epoch", "learning rate", mark=(2, "0.123456")),
    ):
        assert_texts_inside(plot.figure)


@pytest.mark.parametrize("number", [1, 3, 13, 31])
def test_numbers_stay_in_their_cells(number: int) -> None:
    counts = np.diag(np.full(number, 12_345 if number > 12 else 1_234_567))
    (axes,) = matrix("m", "Matrix", counts, ["cell"] * number, "object", "detected as").figure.axes
    side = axes.bbox.width / number
    cells = [text for text in axes.texts if text.get_position()[1] < number]
    assert len(cells) == (0 if number > 30 else number)  # no room for numbers
    assert all(text.get_window_extent().width < side for text in cells)


def cell_strengths(axes: Axes, number: int) -> np.ndarray:
    """The opacity of each cell of a matrix, 0 for empty ones."""
    strengths = np.zeros((number, number))
    for patch in axes.patches:
        if isinstance(patch, Rectangle) and patch.get_y() < number:
            strengths[int(patch.get_y()), int(patch.get_x())] = patch.get_alpha()
    return strengths


def test_a_larger_number_is_never_lighter_than_a_smaller_one() -> None:
    """Not in another row or column either: 13 of 13 is lighter than 27 of 100."""
    counts = np.random.default_rng(0).integers(0, 30, (6, 6))
    counts[0] = [13, 0, 0, 0, 0, 0]
    counts[1] = [27, 73, 0, 0, 0, 9000]
    (axes,) = matrix("m", "Matrix", counts, list("abcdef"), "object", "detected as").figure.axes
    strengths = cell_strengths(axes, 6)
    assert (np.diff(strengths.ravel()[counts.ravel().argsort(kind="stable")]) >= 0).all()
    assert strengths[0, 0] < strengths[1, 0] < strengths[1, 1] < strengths[1, 5]
    assert strengths[0, 0] > 0.09  # and is still seen


@pytest.mark.parametrize("most", [0, 1, 5, 1_000_000])
def test_the_key_of_a_matrix_shows_the_colors_of_counts(most: int) -> None:
    counts = np.array([[most, 0], [0, min(most, 1)]])
    (axes,) = matrix("m", "Matrix", counts, ["a", "b"], "object", "detected as").figure.axes
    key = [text for text in axes.texts if text.get_position()[1] > 2]
    assert key[0].get_text() == "1"
    assert key[-1].get_text() == str(max(most, 1))
    boxes = [text.get_window_extent() for text in key]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_bins_of_whole_numbers_are_named_by_the_numbers_in_them() -> None:
    counts = {"train": np.array([1, 1, 2]), "val": np.array([1])}
    (axes,) = histogram("h", "Objects", counts, np.arange(4), ("red", "blue"), "objects", "share").figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2"]
    (axes,) = histogram("h", "Objects", counts, np.arange(0, 10, 3), ("red", "blue"), "objects", "share").figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0-2", "3-5", "6-8"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("objects", "share")


def test_outer_bins_are_named_by_the_values_that_they_hold() -> None:
    values = {"train": np.array([0.5, 3, 5, 90])}
    (axes,) = histogram("h", "Sizes", values, np.array([2.0, 4, 8]), ("red",), "pixels", "share").figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.5", "4", "90"]
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.5]


def test_names_of_bins_do_not_lie_on_each_other() -> None:
    edges = 2.0 ** np.arange(-4, 4.1, 0.25)
    (axes,) = histogram("h", "Shapes", {"train": edges}, edges, ("red",), "ratio", "share").figure.axes
    boxes = [text.get_window_extent() for text in visible_texts(axes) if text in axes.get_xticklabels()]
    assert len(boxes) > 3
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    names = [f"a class with a long name, number {n}" for n in range(30)]
    assert len({shortened(name) for name in names}) == 30
    assert {len(shortened(name)) for name in names} == {24}
    assert shortened("x" * 24) == "x" * 24
