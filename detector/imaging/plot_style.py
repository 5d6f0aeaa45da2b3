"""Colors, fonts and settings of the plots."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text

INK, MUTED, RULE = "#1d2127", "#5b6470", "#d5d9df"
COLORS = ("#2a78b5", "#c4570c", "#2f7d32", "#a0408a", "#8a6d00", "#0f7c80", "#6b54b5", "#b3261e")
CSS_COLORS = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--line)"}
CSS_COLORS |= {color: f"var(--c{n})" for n, color in enumerate(COLORS)}
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names of classes may have a $
    "axes.unicode_minus": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.dpi": 72,
    "font.size": 11,
    "grid.color": RULE,
    "legend.frameon": False,
    "text.color": MUTED,
    "text.hinting": "none",  # letters then have the same width in every file
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw and write in the style of these plots, whatever the user's matplotlibrc holds."""
    with matplotlib.style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # see ``legible``
        yield


def legible(class_names: Sequence[str]) -> list[str]:
    """Return class names for a plot; one with letters that no installed font has gets its number, which a PNG can show."""
    return [f"{n}: {name}" if fonts_for(name)[1] else name for n, name in enumerate(class_names)]


def use_fonts(axes: Axes) -> None:
    """Set fonts that have the letters of each text."""
    for text in axes.figure.findobj(Text):
        text.set_fontfamily(fonts_for(text.get_text())[0])


@cache
def fonts_for(text: str) -> tuple[list[str], frozenset[str]]:
    """Return font families for ``text``, DejaVu Sans first, and the letters that no installed font has."""
    families, missing = ["DejaVu Sans"], set(text) - {"\n"} - _letters(fontManager.findfont("DejaVu Sans"))
    for font in sorted(fontManager.ttflist, key=lambda font: font.fname) if missing else ():
        if missing & _letters(font.fname) and not font.name.startswith("Last Resort"):  # that one has boxes for all letters
            families.append(font.name)
            missing -= _letters(font.fname)
    return families, frozenset(missing)


@cache
def _letters(font_file: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, get_font(font_file).get_charmap()))
    except (OSError, RuntimeError):  # a font that FreeType does not read
        return frozenset()
