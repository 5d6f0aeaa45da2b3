"""SVG for pages, and files."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest

from detector.imaging.plot_files import Plot, inline_svg, save_plot
from detector.imaging.plot_style import CSS_COLORS, INK
from tests.detector.imaging.samples import ALL, NAMES, bars, confusions, curves


@pytest.mark.parametrize("make", ALL)
def test_svg_follows_the_colors_of_the_page(make: Callable[[], Plot]) -> None:
    svg = inline_svg(make())
    assert "var(--" in svg
    for color in CSS_COLORS:
        assert color not in svg
    root = ElementTree.fromstring(svg)
    assert not [element for element in root.iter() if element.tag in ("style", "metadata")]  # CSS would be the whole page's
    assert not re.search("white|#ffffff", svg)


@pytest.mark.parametrize("make", ALL)
def test_svg_is_the_same_every_time_and_needs_no_other_file(make: Callable[[], Plot]) -> None:
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
        assert any("…" in text for text in texts if text)


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
