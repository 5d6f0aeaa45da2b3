"""Plots: what the SVG of a page holds, and files of any names."""

import re
from pathlib import Path
from xml.etree import ElementTree

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from detector.imaging.plots import (
    COLORS,
    CSS_COLORS,
    INK,
    Line,
    Plot,
    bar_plot,
    heat_map,
    histogram,
    inline_svg,
    legible,
    line_plot,
    matrix,
    plot_style,
    save_plot,
    save_png,
)

NAMES = ["<b>red & hot</b>", "_hidden", "$x_1^{", "猫", "\U0010fffd", "a name that is longer than most names of classes are"]


def curves(name: str = "curves") -> Plot:
    x = np.arange(5)
    y = np.array([0.5, np.nan, 0.25, np.nan, 0.75])
    lines = [Line(text, x, y * n, COLORS[n % 8], dashed=n == 2) for n, text in enumerate(NAMES, start=1)]
    return line_plot(name, "Curves & <more>", lines, "epoch", mark=(3, "0.300"))


def bars() -> Plot:
    return bar_plot("bars", "Bars", NAMES, {"train": range(6), "val": range(6)}, {"train": "abcdef", "val": "ghijkl"})


def shares() -> Plot:
    values = {"train": np.array([0.0, 1, 1, 1, 9]), "val": np.empty(0)}
    return histogram("shares", "Shares", values, np.arange(5.0), COLORS)


def confusions() -> Plot:
    return matrix("confusions", "Confusions", np.arange(36).reshape(6, 6), NAMES, "object", "detected as")


ALL = (curves, bars, shares, confusions)


@pytest.mark.parametrize("make", ALL)
def test_svg_follows_the_colors_of_the_page(make) -> None:
    svg = inline_svg(make())
    assert "var(--" in svg
    for color in CSS_COLORS:
        assert color not in svg
    root = ElementTree.fromstring(svg)
    assert not [element for element in root.iter() if element.tag in ("style", "metadata")]  # CSS would be the whole page's
    assert not re.search("white|#ffffff", svg)


@pytest.mark.parametrize("make", ALL)
def test_svg_is_the_same_every_time_and_needs_no_other_file(make) -> None:
    assert inline_svg(make()) == inline_svg(make())
    assert "http" not in inline_svg(make())
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', inline_svg(make())))


def test_ids_are_unique_on_a_page() -> None:
    page = "".join(inline_svg(plot) for plot in (*[make() for make in ALL], curves("other"), curves("third")))
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(ids)


def test_names_of_classes_are_text_as_they_are() -> None:
    for plot in (curves(), bars(), confusions()):
        texts = [element.text for element in ElementTree.fromstring(inline_svg(plot)).iter("text")]
        for name in NAMES[:5]:
            assert name in texts
        assert any(text.endswith("…") for text in texts if text)


def test_a_plot_says_in_words_what_it_shows() -> None:
    root = ElementTree.fromstring(inline_svg(curves()))
    assert root.get("role") == "img"
    assert root.get("aria-label").startswith(
        "Curves & <more>. <b>red & hot</b>: from 0.5 to 0.75, lowest 0.25, highest 0.75"
    )
    assert "_hidden: from 1 to 1.5" in root.get("aria-label")
    assert "$x_1^{: train c, val i" in inline_svg(bars())
    assert "train: 60.0% from 1 to 2 at most" in inline_svg(shares())
    assert "105 on the diagonal, 525 beside it" in inline_svg(confusions())


def test_tooltips_name_every_bar_cell_and_curve() -> None:
    def tooltips(plot: Plot) -> list[str | None]:
        return [element.text for element in ElementTree.fromstring(inline_svg(plot)).iter("title")]

    assert tooltips(curves()) == NAMES
    assert tooltips(bars())[0] == "train: <b>red & hot</b>: a"
    assert "train: 20.0% from 3 to 4" in tooltips(shares())  # 9 counts in the last bin
    assert "_hidden as 猫: 9 (18% of _hidden)" in tooltips(confusions())
    assert len(tooltips(confusions())) == 35  # the cell with 0 is empty


def test_values_that_are_not_finite_leave_gaps_and_single_values_are_dots() -> None:
    svg = inline_svg(line_plot("gap", "Gap", [Line("", np.arange(3), np.array([1, np.nan, 2]))], "epoch"))
    assert svg.count("<use") >= 2 + 2  # two dots beside the tick marks
    inline_svg(line_plot("none", "None", [Line("none", np.empty(0), np.empty(0))], "epoch"))
    inline_svg(bar_plot("none", "None", [], {"": []}, {"": []}))


def test_files_have_light_colors(tmp_path: Path) -> None:
    save_plot(curves(), tmp_path / "figures")
    root = ElementTree.parse(tmp_path / "figures" / "curves.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    content = (tmp_path / "figures" / "curves.svg").read_text()
    assert INK in content
    assert "var(" not in content
    image = cv2.imread(str(tmp_path / "figures" / "curves.png"))
    assert image.shape[0] > 400
    assert image[0, 0].tolist() == [255, 255, 255]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["curves.png", "curves.svg"]


def test_names_without_letters_in_any_font_have_their_number() -> None:
    assert legible(["cat", "\U0010fffd", "café", "Ёж"]) == ["cat", "1: \U0010fffd", "café", "Ёж"]


def test_heat_map(tmp_path: Path) -> None:
    with plot_style():
        figure = Figure(figsize=(3, 2))
        heat_map(figure.add_subplot(), np.array([[0.0, 0.5], [1.0, np.nan]]), NAMES[:2], ["0", "1"], (0, 1), "viridis")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "0.50", "1.00"]
    assert [text.get_color() for text in figure.axes[0].texts] == ["white", "white", "black"]
    save_png(figure, tmp_path / "map.png")
    assert cv2.imread(str(tmp_path / "map.png")).std() > 30


def test_the_settings_of_the_user_stay_and_do_not_matter() -> None:
    expected = inline_svg(curves())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert inline_svg(curves()) == expected
        assert matplotlib.rcParams["font.size"] == 30
