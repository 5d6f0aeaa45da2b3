"""Plots as inline SVG for pages, and as PNG and SVG files.

A plot is drawn once, in light colors. Inline SVG has CSS variables of the page in their place, so that it follows a light or
dark page. Sizes are in CSS pixels: a point of matplotlib is a pixel.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from detector.files import atomic_write
from detector.imaging.plot_style import CSS_COLORS, fonts_for, plot_style, use_fonts

TOOLTIP = "tooltip: "  # a gid that begins so becomes the tooltip of its artist in SVG


@dataclass(frozen=True)
class Plot:
    """A figure, its file name without suffix (unique on a page), its title, and its content in words."""

    name: str
    title: str
    description: str
    svg: str  # in light colors
    figure: Figure
    box: Bbox  # around everything in the figure, in inches


def finish(name: str, title: str, words: Iterable[str], axes: Axes) -> Plot:
    """Return the plot of ``axes``; call it within ``plot_style``. ``words`` are the parts of its description."""
    use_fonts(axes)
    figure = axes.figure
    texts = [text.get_text() for text in figure.findobj(Text)]
    missing = max(sum(letter in fonts_for(text)[1] for letter in text) for text in texts)
    box = _bounding_box(figure, padding=2 + 5 * missing)  # the boxes for these letters are narrower than the letters
    description = "; ".join(filter(None, words))
    svg = _svg(name, f"{title}. {description}" if description else title, figure, box)
    return Plot(name, title, description, svg, figure, box)


def _bounding_box(figure: Figure, padding: float) -> Bbox:
    """Return the box in inches around all that is drawn, ``padding`` in pixels ("tight" would draw the figure again)."""
    return figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()).padded(padding / 72)


def _svg(name: str, label: str, figure: Figure, box: Bbox) -> str:
    """Return the SVG element of a figure with ``label`` for people who do not see it, without dates and ids of groups."""
    matplotlib.rcParams["svg.hashsalt"] = name  # makes the ids of an element always the same, and no other plot's
    written, no_metadata = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", facecolor="none", bbox_inches=box, metadata=no_metadata)
    root = ElementTree.fromstring(written.getvalue())
    for element in list(root.iter()):
        _simplify(element)
    width, height = root.get("viewBox", "").split()[2:]
    root.attrib |= {"width": width, "height": height, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(element: ElementTree.Element) -> None:
    """Drop namespaces, the ids of groups, and CSS that would be the whole page's; make gids tooltips."""
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {name.rpartition("}")[2]: value for name, value in element.items()}
    if element.tag == "g" and (gid := element.attrib.pop("id", "")).startswith(TOOLTIP):
        title = ElementTree.Element("title")
        title.text = gid.removeprefix(TOOLTIP)
        element.insert(0, title)
    for style in element.findall("{*}style"):
        element.remove(style)


def inline_svg(plot: Plot) -> str:
    """Return ``plot`` as an SVG element for a page of ``detector.report.page``, whose CSS variables color it."""
    root = ElementTree.fromstring(plot.svg)
    for element in root.iter():
        if style := element.get("style"):
            element.set("style", re.sub("#[0-9a-f]{6}", lambda color: CSS_COLORS.get(color[0], color[0]), style))
    return ElementTree.tostring(root, encoding="unicode")


def save_plot(plot: Plot, folder: Path) -> None:
    """Write ``plot`` as PNG and SVG files of its name, in light colors."""
    with atomic_write(folder / f"{plot.name}.svg") as path:
        path.write_text(plot.svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1), encoding="utf-8")
    save_png(plot.figure, folder / f"{plot.name}.png", plot.box, dpi=200)


def save_png(figure: Figure, path: Path, box: Bbox | None = None, dpi: int = 100) -> None:
    """Write ``figure`` as a PNG file; ``box`` in inches is by default around everything."""
    with plot_style(), atomic_write(path) as unfinished:
        box = box or _bounding_box(figure, padding=7)
        figure.savefig(unfinished, format="png", dpi=dpi, bbox_inches=box, metadata={"Software": None})
