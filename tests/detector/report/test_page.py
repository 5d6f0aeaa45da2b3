"""Templates: text is escaped, colors agree with the plots, and they are installed with the package."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from detector.imaging.plot_style import CSS_COLORS
from detector.report.page import TEMPLATES, CaptionedImage, Table, render

TEXT = "<b>\"red\" & 'hot'</b>"
ESCAPED = "&lt;b&gt;&#34;red&#34; &amp; &#39;hot&#39;&lt;/b&gt;"


@pytest.mark.parametrize(
    ("call", "number"), [("html.table(content)", 3), ("html.images([image])", 2), ("html.keys({text: text})", 2)]
)
def test_macros_escape_all_text(tmp_path: Path, call: str, number: int) -> None:
    (tmp_path / "test.html").write_text('{% import "macros.html" as html %}{{ ' + call + " }}")
    content = {
        "content": Table([TEXT], [[TEXT, TEXT]]),
        "image": CaptionedImage(TEXT, np.zeros((2, 3, 3), np.uint8)),
        "text": TEXT,
    }
    page = render("test.html", tmp_path, **content)
    assert page.count(ESCAPED) == number
    assert "<b>" not in page


def test_missing_content_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="heading"):
        render("report.html")


def test_colors_of_plots_are_those_of_the_page() -> None:
    light, dark = (TEMPLATES / "style.css").read_text().split("@media (prefers-color-scheme: dark)")
    for color, variable in CSS_COLORS.items():
        assert f"{variable.removeprefix('var(').removesuffix(')')}: {color}" in light
    variables = set(re.findall(r"(--\w+):", light))
    assert set(re.findall(r"(--\w+):", dark)) == variables
    for path in TEMPLATES.iterdir():
        assert set(re.findall(r"var\((--\w+)\)", path.read_text())) <= variables, path


def test_templates_are_installed_with_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["detector.report"] == ["templates/*"]
    templates = files("detector.report") / "templates"
    names = {"classifier.html", "macros.html", "page.html", "report.html", "run.html", "style.css"}
    assert {path.name for path in templates.iterdir()} == names
