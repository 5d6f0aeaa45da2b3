"""Plots by matplotlib without its global state: inline SVG for pages, and PNG and SVG files.

Figures have the light colors below. Inline SVG has CSS variables of the page in their place, so that it follows a light or
dark page. Sizes are in CSS pixels: a point of matplotlib is a pixel.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from detector.files import atomic_write

INK, MUTED, RULE = "#1d2127", "#5b6470", "#d5d9df"
COLORS = ("#2a78b5", "#c4570c", "#2f7d32", "#a0408a", "#8a6d00", "#0f7c80", "#6b54b5", "#b3261e")
CSS_COLORS = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--line)"}
CSS_COLORS |= {color: f"var(--c{n})" for n, color in enumerate(COLORS)}
TOOLTIP = "tooltip: "  # a gid that begins so becomes the tooltip of its artist in SVG
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


@dataclass(frozen=True)
class Plot:
    """A figure, its file name without suffix (unique on a page), its title, and its content in words."""

    name: str
    title: str
    description: str
    svg: str  # in light colors
    figure: Figure
    box: Bbox  # around everything in the figure, in inches


@dataclass(frozen=True)
class Line:
    """One curve. Values that are not finite leave a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str = COLORS[0]
    width: float = 1.8
    dashed: bool = False

    @property
    def dashes(self) -> str | tuple[int, tuple[int, int]]:
        """The line style of matplotlib."""
        return (0, (3, 2)) if self.dashed else "-"

    def in_words(self) -> str:
        """Return the first, last, lowest and highest value."""
        y = self.y[np.isfinite(self.y)]
        if not len(y):
            return ""
        values = f"from {y[0]:.3g} to {y[-1]:.3g}, lowest {y.min():.3g}, highest {y.max():.3g}"
        return f"{self.name}: {values}" if self.name else values


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw in the style of these plots, whatever the user's matplotlibrc holds."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@plot_style()
def line_plot(
    name: str,
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str = "",
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (330, 200),
) -> Plot:
    """Return curves with axes of ``size`` (width, height); without limits they fit the values.

    ``mark`` is a vertical line at x, and its text.
    """
    axes = _axes(size)
    for line in lines:
        axes.plot(line.x, line.y, color=line.color, linewidth=line.width, linestyle=line.dashes, gid=TOOLTIP + line.name)
        finite = np.isfinite(line.x) & np.isfinite(line.y)
        alone = finite & ~np.append(False, finite[:-1]) & ~np.append(finite[1:], False)  # a single epoch is a dot
        axes.plot(line.x[alone], line.y[alone], "o", color=line.color)
    _legend(axes, [line for line in lines if line.name], size)
    axes.set(xlim=x_limits, ylim=y_limits)
    axes.set_xlabel(x_label, loc="right")
    axes.set_ylabel(y_label, loc="top")
    axes.grid(axis="y")
    whole = all(np.issubdtype(line.x.dtype, np.integer) for line in lines)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
    if mark is not None:
        _mark(axes, *mark)
    return _finish(name, title, [line.in_words() for line in lines], axes)


def _axes(size: tuple[float, float]) -> Axes:
    """Return axes of ``size`` (width, height) in a figure of their own; texts around them enlarge it when it is written."""
    return Figure(figsize=(size[0] / 72, size[1] / 72)).add_axes((0, 0, 1, 1))


def _legend(axes: Axes, lines: Sequence[Line], size: tuple[int, int]) -> None:
    if not lines:
        return
    handles = [axes.plot([], [], color=line.color, linewidth=2.5, linestyle=line.dashes)[0] for line in lines]
    below = {"loc": "upper left", "bbox_to_anchor": (0, -34 / size[1]), "borderpad": 0, "borderaxespad": 0}
    legend = axes.legend(handles, [str(n) for n in range(len(lines))], handlelength=1.5, **below)
    for text, line in zip(legend.get_texts(), lines):
        text.set_text(shortened(line.name, size[0] // 10))  # only now, as matplotlib leaves out names that begin with "_"


def _mark(axes: Axes, x: float, text: str) -> None:
    low, high = axes.get_xlim()
    offset, align = (-4, "right") if x > low + 0.6 * (high - low) else (4, "left")
    axes.axvline(x, color=INK, linewidth=1, linestyle=":")
    axes.annotate(text, (x, 1), (offset, -12), xycoords=("data", "axes fraction"), textcoords="offset points", ha=align)


@plot_style()
def bar_plot(
    name: str,
    title: str,
    labels: Sequence[str],
    values: Mapping[str, Sequence[float]],
    texts: Mapping[str, Sequence[str]],
    colors: Sequence[str] = COLORS,
    width: int = 190,
) -> Plot:
    """Return horizontal bars: for each of the ``labels`` a bar of every series in ``values``, its text behind it."""
    thickness = 14 if len(values) == 1 else 10
    row = thickness * len(values) + 6
    axes = _axes((width, max(row * len(labels), 1)))
    for number, series in enumerate(values):
        for n, (label, value, text) in enumerate(zip(labels, values[series], texts[series])):
            top = n * row + 3 + number * thickness
            gid = TOOLTIP + ": ".join(filter(None, (series, label, text)))
            axes.add_patch(Rectangle((0, top), value, thickness - 1, facecolor=colors[number], gid=gid))
            place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center_baseline"}
            axes.annotate(text, (value, top + thickness / 2), fontsize=min(11, thickness - 1), **place)
    highest = max((value for series in values.values() for value in series), default=0)
    axes.set(xlim=(0, highest or 1), ylim=(max(row * len(labels), 1), 0), xticks=[])
    axes.set_yticks([(n + 0.5) * row for n in range(len(labels))], [shortened(label) for label in labels])
    axes.spines[:].set_visible(False)
    words = [f"{label}: {', '.join(' '.join((s, texts[s][n])).strip() for s in values)}" for n, label in enumerate(labels)]
    return _finish(name, title, words, axes)


@plot_style()
def histogram(name: str, title: str, values: Mapping[str, np.ndarray], edges: np.ndarray, colors: Sequence[str]) -> Plot:
    """Return bars: which share of each series in ``values`` lies between two ``edges``; outer bins hold all beyond them."""
    axes, words = _axes((480, 200)), []
    width = 0.9 / len(values)
    for number, (series, array) in enumerate(values.items()):
        inside = np.clip(array, edges[0], np.nextafter(edges[-1], -np.inf))
        shares = np.histogram(inside, edges)[0] / max(len(array), 1)
        texts = [f"{series}: {shares[n]:.1%} from {edges[n]:.3g} to {edges[n + 1]:.3g}" for n in range(len(shares))]
        for n, share in enumerate(shares):
            place = (n + number * width, 0)
            axes.add_patch(Rectangle(place, width, share, facecolor=colors[number], gid=TOOLTIP + texts[n]))
        words.append(f"{texts[shares.argmax()]} at most")
    axes.autoscale_view()
    axes.set(xlim=(0, len(edges) - 1), ylim=(0, None))
    ticks = range(0, len(edges), max(len(edges) // 8, 1))
    axes.set_xticks(ticks, [f"{edges[n]:.4g}" for n in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y")
    return _finish(name, title, words, axes)


@plot_style()
def matrix(name: str, title: str, counts: np.ndarray, labels: Sequence[str], rows: str, columns: str) -> Plot:
    """Return counts (C, C) as cells shaded by their share of the row, with numbers if there is room for them.

    Cells with 0 are left empty. ``labels`` (C) name rows and columns alike, ``rows`` and ``columns`` the two axes.
    """
    number = len(labels)
    cell = 46 if number <= 12 else max(9, 420 // number)  # pixels
    axes = _axes((number * cell, number * cell))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i, j in np.argwhere(counts).tolist():
        gid = f"{TOOLTIP}{labels[i]} as {labels[j]}: {counts[i, j]} ({shares[i, j]:.0%} of {labels[i]})"
        shade, side = 0.12 + 0.6 * shares[i, j], 1 - 1 / cell
        axes.add_patch(Rectangle((j, i), side, side, facecolor=COLORS[0], alpha=shade, linewidth=0, gid=gid))
        if cell >= 46:
            axes.text(j + 0.5, i + 0.5, f"{counts[i, j]}", color=INK, ha="center", va="center_baseline")
    axes.set(xlim=(0, number), ylim=(number, 0), xlabel=columns, ylabel=rows)
    step = math.ceil(11 / cell)  # names of small cells would lie on each other
    ticks, names = np.arange(0, number, step) + 0.5, [shortened(label) for label in labels][::step]
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(ticks, names, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=RULE)
    right = int(counts.trace())
    return _finish(name, title, [f"{right} on the diagonal, {int(counts.sum()) - right} beside it"], axes)


def heat_map(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    color_map: str,
    numbers: bool = True,
) -> None:
    """Draw ``values`` (R, C) as colored cells with a color bar; NaN is left empty. Call it within ``plot_style``.

    ``color_map`` is one of matplotlib's; its colors run from the lower to the upper of ``limits``. ``numbers`` writes the
    values into the cells.
    """
    cells = axes.imshow(values, cmap=color_map, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    width = axes.figure.get_figwidth() * 72 * axes.get_position().width
    axes.figure.colorbar(cells, axes.inset_axes((1 + 10 / width, 0, 12 / width, 1))).outline.set_visible(False)
    for i, j in np.argwhere(np.isfinite(values)).tolist() if numbers else []:
        bright = np.dot(cells.to_rgba(values[i, j])[:3], (0.299, 0.587, 0.114)) > 0.5
        ink = "black" if bright else "white"
        axes.text(j, i, f"{values[i, j]:.2f}", color=ink, fontsize=9, ha="center", va="center_baseline")
    _use_fonts(axes)


def shortened(text: str, most: int = 24) -> str:
    """Return ``text``, or its beginning if it has more than ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def legible(class_names: Sequence[str]) -> list[str]:
    """Return the names for a plot: one with letters that no installed font has after its number, all that a PNG can show."""
    return [f"{n}: {name}" if _fonts(name)[1] else name for n, name in enumerate(class_names)]


@cache
def _fonts(text: str) -> tuple[list[str], frozenset[str]]:
    """Return font families for ``text``, DejaVu Sans first, and the letters that no installed font has."""
    families, missing = ["DejaVu Sans"], set(text) - _letters(fontManager.findfont("DejaVu Sans"))
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


def _finish(name: str, title: str, words: Iterable[str], axes: Axes) -> Plot:
    """Return the plot of ``axes``, with fonts for all its letters."""
    _use_fonts(axes)
    figure = axes.figure
    missing = [sum(letter in _fonts(text)[1] for letter in text) for text in (t.get_text() for t in figure.findobj(Text))]
    # Letters without a font are wider in a browser than the boxes that matplotlib draws for them.
    box = _bounding_box(figure, padding=2 + 5 * max(missing))
    words = "; ".join(filter(None, words))
    return Plot(name, title, words, _svg(name, f"{title}. {words}" if words else title, figure, box), figure, box)


def _use_fonts(axes: Axes) -> None:
    for text in axes.figure.findobj(Text):
        text.set_fontfamily(_fonts(text.get_text())[0])


def _bounding_box(figure: Figure, padding: float) -> Bbox:
    """Return the box in inches around all that is drawn, ``padding`` in pixels ("tight" would draw the figure again)."""
    return figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()).padded(padding / 72)


def _svg(name: str, label: str, figure: Figure, box: Bbox) -> str:
    """Return the SVG element of a figure with ``label`` for people who do not see it, without dates and ids of groups."""
    matplotlib.rcParams["svg.hashsalt"] = name  # makes the ids of an element always the same, and no other plot's
    written, no_metadata = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    _save(figure, written, box, format="svg", facecolor="none", metadata=no_metadata)
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


def _save(figure: Figure, to: Any, box: Bbox, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # see ``legible``
        figure.savefig(to, bbox_inches=box, **options)


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
    save_png(plot.figure, folder / f"{plot.name}.png", plot.box)


def save_png(figure: Figure, path: Path, box: Bbox | None = None) -> None:
    """Write ``figure`` as a PNG file, two pixels for each CSS pixel; ``box`` in inches is by default around everything."""
    box = box or _bounding_box(figure, padding=7)
    with atomic_write(path) as unfinished:
        _save(figure, unfinished, box, format="png", dpi=144, metadata={"Software": None})
