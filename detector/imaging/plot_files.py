"""Plots as inline SVG for pages, and as PNG and SVG files.

A plot is drawn once, in light colors. Inline SVG has CSS variables of the page in their place, so that it follows a light or
dark page. Sizes are in CSS pixels: a point of matplotlib is a pixel.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from detector.files import atomic_write
from detector.imaging.plot_style import CSS_COLORS, fonts_for, plot_style, use_fonts

TOOLTIP = "tooltip: "  # a gid that begins so becomes the tooltip of its artist in SVG
PADDING = 4  # pixels around all that is drawn
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True)
class Plot:
    """A figure, its file name without suffix (unique on a page) and its title."""

    name: str
    title: str
    svg: str  # an SVG element in light colors
    figure: Figure


def finish(name: str, title: str, words: Iterable[str], axes: Axes) -> Plot:
    """Return the plot of ``axes``; call it within ``plot_style``. ``words`` are the parts of its description."""
    use_fonts(axes)
    figure = figure_of(axes)
    enclose(figure)
    description = "; ".join(filter(None, words))
    svg = _svg(name, f"{title}. {description}" if description else title, figure)
    return Plot(name, title, svg, figure)


def figure_of(axes: Axes) -> Figure:
    """Return the figure that ``axes`` lie in; plots here have no figures within figures."""
    assert isinstance(axes.figure, Figure)
    return axes.figure


def enclose(figure: Figure) -> None:
    """Resize ``figure`` so that all that is drawn lies within it, the texts around its axes, too. Axes keep their size."""
    texts = [text.get_text() for text in figure.findobj(Text)]
    missing = max(sum(letter in fonts_for(text)[1] for letter in text) for text in texts)
    padding = PADDING + 5 * missing  # the boxes for these letters are narrower than the letters
    box, (width, height) = figure.get_tightbbox().padded(padding / 72), figure.get_size_inches()
    for axes in figure.axes:
        x, y, axes_width, axes_height = axes.get_position(original=True).bounds
        corner = (x * width - box.x0) / box.width, (y * height - box.y0) / box.height
        axes.set_position((*corner, axes_width * width / box.width, axes_height * height / box.height))
    figure.set_size_inches(box.width, box.height)


def _svg(name: str, label: str, figure: Figure) -> str:
    """Return the SVG element of a figure with ``label`` for people who do not see it, without dates and ids of groups."""
    matplotlib.rcParams["svg.hashsalt"] = name  # makes the ids of an element always the same, and no other plot's
    file = io.StringIO()
    figure.savefig(file, format="svg", facecolor="none", metadata=NO_METADATA)
    element = re.search(r'<svg .*?(viewBox="[^"]*").*?>(.*)', file.getvalue(), re.DOTALL)
    assert element is not None
    size, content = element.groups()
    width, height = re.findall(r"[\d.]+", size)[2:]
    content = re.sub("<style.*?</style>", "", content, flags=re.DOTALL)  # CSS for the whole page
    content = re.sub(f'<g id="{TOOLTIP}([^"]*)">', r"<g><title>\1</title>", content)
    content = re.sub('<g id="[^"]*"', "<g", content).replace("xlink:href", "href")
    return f'<svg width="{width}" height="{height}" {size} role="img" aria-label={quoteattr(label)}>{content}'


def inline_svg(plot: Plot) -> str:
    """Return ``plot`` as an SVG element for a page of ``detector.report.page``, whose CSS variables color it."""
    return re.sub(r'(?<=[a-z]: )#[0-9a-f]{6}(?=[;"])', lambda color: CSS_COLORS.get(color[0], color[0]), plot.svg)


def save_plot(plot: Plot, folder: Path) -> None:
    """Write ``plot`` as PNG and SVG files of its name, in light colors."""
    with atomic_write(folder / f"{plot.name}.svg") as path:
        path.write_text(plot.svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1), encoding="utf-8")
    save_png(plot.figure, folder / f"{plot.name}.png", dpi=200)


def save_png(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write ``figure`` with everything in it as a PNG file."""
    with plot_style(), atomic_write(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=dpi, metadata={"Software": None})
