"""Fonts and settings."""

import warnings
from pathlib import Path

import matplotlib
from matplotlib.font_manager import fontManager, get_font

from detector.imaging.plot_files import inline_svg, save_plot
from detector.imaging.plot_style import fonts_for, legible
from tests.detector.imaging.samples import curves


def test_names_without_letters_in_any_font_have_their_number() -> None:
    assert legible(["cat", "\U0010fffd", "café", "Ёж"]) == ["cat", "1: \U0010fffd", "café", "Ёж"]


def test_other_fonts_have_the_letters_that_the_first_lacks() -> None:
    """matplotlib brings STIX, which has letters beyond those of DejaVu."""
    first, second = (
        set(map(chr, get_font(fontManager.findfont(name)).get_charmap())) for name in ("DejaVu Sans", "STIXGeneral")
    )
    families, missing = fonts_for("a" + min(second - first))
    assert families[0] == "DejaVu Sans"
    assert len(families) == 2
    assert not missing


def test_letters_without_a_font_give_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_plot(curves(), tmp_path)


def test_the_settings_of_the_user_stay_and_do_not_matter() -> None:
    expected = inline_svg(curves())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert inline_svg(curves()) == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_a_line_break_needs_no_font() -> None:
    """It is no letter of any font: searching for it would read all of them, which takes seconds."""
    assert fonts_for("two\nlines") == (["DejaVu Sans"], frozenset())
