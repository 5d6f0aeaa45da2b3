"""What plots show, in words and under the pointer."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from matplotlib.figure import Figure

from detector.imaging.plot_files import Plot, inline_svg, save_png
from detector.imaging.plot_style import plot_style
from detector.imaging.plots import Line, bar_plot, heat_map, line_plot
from tests.detector.imaging.samples import NAMES, bars, confusions, curves, shares


def test_a_plot_says_in_words_what_it_shows() -> None:
    root = ElementTree.fromstring(inline_svg(curves()))
    assert root.get("role") == "img"
    assert root.get("aria-label").startswith(
        "Curves & <more>. <b>red & hot</b>: from 0.5 to 0.75, lowest 0.25, highest 0.75"
    )
    assert "_hidden: from 1 to 1.5" in root.get("aria-label")
    assert "$x_1^{: train c, val i" in inline_svg(bars())
    assert "highest bar of train: 60.0% from 1 to 2" in inline_svg(shares())
    assert "105 on the diagonal, 525 beside it" in inline_svg(confusions())


def test_tooltips_name_every_bar_cell_and_curve() -> None:
    def tooltips(plot: Plot) -> list[str | None]:
        return [element.text for element in ElementTree.fromstring(inline_svg(plot)).iter("title")]

    assert tooltips(curves()) == NAMES
    assert tooltips(bars())[0] == "train: <b>red & hot</b>: a"
    assert "train: 20.0% from 3 to 9" in tooltips(shares())  # the last bin holds all beyond it
    assert "_hidden as 猫: 9 (18% of the row _hidden)" in tooltips(confusions())
    assert len(tooltips(confusions())) == 35  # the cell with 0 is empty


def test_values_that_are_not_finite_leave_gaps_and_single_values_are_dots() -> None:
    svg = inline_svg(line_plot("gap", "Gap", [Line("", np.arange(3), np.array([1, np.nan, 2]))], "epoch"))
    assert svg.count("<use") >= 2 + 2  # two dots beside the tick marks
    inline_svg(line_plot("none", "None", [Line("none", np.empty(0), np.empty(0))], "epoch"))
    inline_svg(bar_plot("none", "None", [], {"": []}, {"": []}))


def test_heat_map(tmp_path: Path) -> None:
    with plot_style():
        figure = Figure(figsize=(3, 2))
        heat_map(
            figure.add_subplot(), np.array([[0.0, 0.5], [1.0, np.nan]]), NAMES[:2], ["0", "1"], (0, 1), "viridis", "weight"
        )
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "0.50", "1.00"]
    assert [text.get_color() for text in figure.axes[0].texts] == ["white", "white", "black"]
    save_png(figure, tmp_path / "map.png")
    assert cv2.imread(str(tmp_path / "map.png")).std() > 30
