"""Fonts and settings."""

import warnings
from pathlib import Path

import matplotlib

from detector.imaging.plot_files import inline_svg, save_plot
from detector.imaging.plot_style import legible
from tests.detector.imaging.samples import curves


def test_names_without_letters_in_any_font_have_their_number() -> None:
    assert legible(["cat", "\U0010fffd", "café", "Ёж"]) == ["cat", "1: \U0010fffd", "café", "Ёж"]


def test_letters_without_a_font_give_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_plot(curves(), tmp_path)


def test_the_settings_of_the_user_stay_and_do_not_matter() -> None:
    expected = inline_svg(curves())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert inline_svg(curves()) == expected
        assert matplotlib.rcParams["font.size"] == 30
