"""Lines, bars, histograms, matrices and heat maps by matplotlib, without its global state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from detector.imaging.plot_files import TOOLTIP, Plot, figure_of, finish
from detector.imaging.plot_style import COLORS, INK, RULE, plot_style

STEPS = (1, 2, 5, 10)  # of ticks, times a power of 10
CELL_SIDES = {12: 46, 30: 30}  # pixels of a matrix cell by the most classes, with room for a number
SMALL_CELL = 12  # pixels, for more classes: room for the names
BAR_GAP = 24  # pixels between a heat map and its color bar


@dataclass(frozen=True)
class Line:
    """One curve. Values that are not finite leave a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str = COLORS[0]
    width: float = 1.8
    dashed: bool = False

    def in_words(self) -> str:
        """Return the first, last, lowest and highest value."""
        y = self.y[np.isfinite(self.y)]
        if not len(y):
            return ""
        values = f"from {y[0]:.3g} to {y[-1]:.3g}, lowest {y.min():.3g}, highest {y.max():.3g}"
        return f"{self.name}: {values}" if self.name else values


@plot_style()
def line_plot(
    name: str,
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str = "",
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float | None] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (330, 200),
) -> Plot:
    """Return curves with axes of ``size`` (width, height); without limits, or with None for one, they fit the values.

    ``mark`` is a vertical line at x, and its text.
    """
    axes = _axes(size)
    curves = [_draw_line(axes, line) for line in lines]
    _legend(axes, {curve: line.name for curve, line in zip(curves, lines) if line.name}, size)
    axes.set(xlim=x_limits, ylim=y_limits)
    axes.set_xlabel(x_label, loc="right")
    axes.set_ylabel(y_label, loc="top")
    axes.grid(axis="y")
    whole = all(np.issubdtype(line.x.dtype, np.integer) for line in lines)
    axes.locator_params("x", nbins=6, steps=STEPS, integer=whole)
    axes.locator_params("y", nbins=5, steps=STEPS)
    axes.xaxis.set_major_formatter("{x:.10g}")
    axes.yaxis.set_major_formatter("{x:.10g}")
    if mark is not None:
        _mark(axes, *mark)
    return finish(name, title, [line.in_words() for line in lines], axes)


def _axes(size: tuple[float, float]) -> Axes:
    """Return axes of ``size`` (width, height) in a figure of their own; texts around them enlarge it when it is written."""
    return Figure(figsize=(size[0] / 72, size[1] / 72)).add_axes((0, 0, 1, 1))


def _draw_line(axes: Axes, line: Line) -> Line2D:
    """Draw ``line``, with dots for values without neighbors, as of a single epoch."""
    finite = np.isfinite(line.x) & np.isfinite(line.y)
    alone = finite & ~np.append(False, finite[:-1]) & ~np.append(finite[1:], False)
    style, gid = "o--" if line.dashed else "o-", TOOLTIP + line.name if line.name else None
    return axes.plot(line.x, line.y, style, markevery=alone, color=line.color, linewidth=line.width, gid=gid)[0]


def _legend(axes: Axes, names: Mapping[Line2D, str], size: tuple[int, int]) -> None:
    """Add the names of curves below axes of ``size`` (width, height)."""
    below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -34 / size[1]), "borderpad": 0, "borderaxespad": 0}
    legend = axes.legend(list(names), list(map(str, range(len(names)))), handlelength=1.5, markerscale=0, **below)
    for text, name in zip(legend.get_texts(), names.values()):
        text.set_text(shortened(name, size[0] // 10))  # only now, as matplotlib leaves out names that begin with "_"


def _mark(axes: Axes, x: float, text: str) -> None:
    low, high = axes.get_xlim()
    offset, align = (-4, "right") if x > low + 0.6 * (high - low) else (4, "left")
    axes.axvline(x, color=INK, linewidth=1, linestyle=":")
    axes.annotate(text, (x, 1), (offset, -12), xycoords=("data", "axes fraction"), textcoords="offset points", ha=align)


def _set_tooltips(artists: Iterable[Artist], texts: Iterable[str]) -> None:
    for artist, text in zip(artists, texts):
        artist.set_gid(TOOLTIP + text)


@plot_style()
def bar_plot(
    name: str,
    title: str,
    labels: Sequence[str],
    values: Mapping[str, Sequence[float]],
    texts: Mapping[str, Sequence[str]],
    colors: Sequence[str] = COLORS,
    width: int = 190,
    scale: tuple[str, Mapping[float, str]] = ("", {}),
) -> Plot:
    """Return horizontal bars: for each of the ``labels`` a bar of every series in ``values``, its text behind it.

    ``scale`` is a label of the values and their ticks; by default there are none, as the texts tell the values.
    """
    thickness = 14 if len(values) == 1 else 10
    row = thickness * len(values) + 6
    height = max(row * len(labels), 1)
    axes = _axes((width, height))
    for number, (series, color) in enumerate(zip(values, colors)):
        tops = [n * row + 3 + number * thickness for n in range(len(labels))]
        bars = axes.barh(tops, values[series], thickness - 1, align="edge", color=color)
        axes.bar_label(bars, texts[series], padding=4, fontsize=min(11, thickness - 1))
        _set_tooltips(bars, [": ".join(filter(None, (series, *pair))) for pair in zip(labels, texts[series])])
    highest = max((value for series in values.values() for value in series), default=0)
    axes.set(xlim=(0, highest or 1), ylim=(height, 0))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(scale[0], loc="left")
    axes.set_xticks(list(scale[1]), list(scale[1].values()))
    axes.grid(axis="x", visible=bool(scale[1]))
    axes.set_yticks([(n + 0.5) * row for n in range(len(labels))], [shortened(label) for label in labels])
    axes.spines[:].set_visible(False)
    words = [f"{label}: {', '.join(' '.join((s, texts[s][n])).strip() for s in values)}" for n, label in enumerate(labels)]
    return finish(name, title, words, axes)


@plot_style()
def histogram(
    name: str,
    title: str,
    values: Mapping[str, np.ndarray],
    edges: np.ndarray,
    colors: Sequence[str],
    x_label: str,
    y_label: str,
) -> Plot:
    """Return bars: which share of each series in ``values`` lies between two ``edges``.

    The outer bins hold all values beyond them, and their outer edges are then the lowest and the highest value. Edges that
    are whole numbers, with ``values`` of the same kind, name the numbers in each bin instead.
    """
    edges, ticks, names = _bins(values, edges)
    axes, words = _axes((300, 170)), []
    width = 0.9 / len(values)
    for number, (series, color) in enumerate(zip(values, colors)):
        shares = np.histogram(values[series], edges)[0] / max(len(values[series]), 1)
        bins = names if len(names) == len(shares) else [f"{low} to {high}" for low, high in pairwise(names)]
        texts = [f"{series}: {share:.1%} {'with' if bins is names else 'from'} {bin_}" for share, bin_ in zip(shares, bins)]
        _set_tooltips(axes.bar(np.arange(len(shares)) + number * width, shares, width, align="edge", color=color), texts)
        words.append(f"highest bar of {texts[shares.argmax()]}")
    axes.set(xlim=(0, len(edges) - 1), ylim=(0, None))
    axes.set_xlabel(x_label, loc="right")
    axes.set_ylabel(y_label, loc="top")
    step = math.ceil(len(names) * (7 * max(map(len, names)) + 5) / 300)  # so that names do not lie on each other
    axes.set_xticks(ticks[::step], names[::step])
    axes.locator_params("y", nbins=4, steps=STEPS)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y")
    return finish(name, title, words, axes)


def _bins(values: Mapping[str, np.ndarray], edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the edges that hold all ``values``, and places and names of ticks: of bins of whole numbers, or of edges."""
    together = np.concatenate(list(values.values()))
    if all(np.issubdtype(array.dtype, np.integer) for array in (together, edges)):
        last = edges[1:] - 1
        names = [str(low) if low == high else f"{low}-{high}" for low, high in zip(edges.tolist(), last.tolist())]
        return edges, np.arange(len(names)) + 0.45, names  # the middle of the bars
    edges = edges.astype(float)
    if len(together):
        edges[0], edges[-1] = min(edges[0], together.min()), max(edges[-1], together.max())
    return edges, np.arange(len(edges)), [f"{edge:.3g}" for edge in edges]


@plot_style()
def matrix(name: str, title: str, counts: np.ndarray, labels: Sequence[str], rows: str, columns: str) -> Plot:
    """Return counts (C, C) as colored cells, with numbers if there is room for them, and a key of the colors.

    All cells have one scale: of two counts, the larger one has the stronger color. It follows the square root of the count:
    small counts beside large ones are then seen. Cells with 0 are left empty. ``labels`` (C) name rows and columns alike,
    ``rows`` and ``columns`` the two axes.
    """
    number = len(labels)
    cell = next((side for most, side in CELL_SIDES.items() if number <= most), SMALL_CELL)  # pixels
    axes, most = _axes((number * cell, number * cell)), max(int(counts.max(initial=0)), 1)
    _draw_counts(axes, counts, labels, most, cell)
    axes.set(xlim=(0, number), ylim=(number, 0), xlabel=columns, ylabel=rows)
    ticks, names = np.arange(number) + 0.5, [shortened(label) for label in labels]
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(ticks, names, rotation=45, ha="left", rotation_mode="anchor", fontsize=min(11, cell - 2))
    axes.set_yticks(ticks, names, fontsize=min(11, cell - 2))
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=RULE)
    _color_key(axes, most, cell)
    right = int(counts.trace())
    return finish(name, title, [f"{right} on the diagonal, {int(counts.sum()) - right} beside it"], axes)


def _draw_counts(axes: Axes, counts: np.ndarray, labels: Sequence[str], most: int, cell: int) -> None:
    """Draw the cells of a matrix, each with a tooltip, and with its number if a cell of ``cell`` pixels has room for it."""
    shares, side = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), 1 - 1 / cell
    for i, j in np.argwhere(counts).tolist():
        text = str(counts[i, j])
        gid = f"{TOOLTIP}{labels[i]} as {labels[j]}: {text} ({shares[i, j]:.0%} of the row {labels[i]})"
        axes.add_patch(Rectangle((j, i), side, side, color=COLORS[0], alpha=_strength(counts[i, j], most), lw=0, gid=gid))
        if cell > SMALL_CELL:
            size = min(11, cell / 3.4, 1.5 * (cell - 4) / len(text))  # a digit is 0.64 of its size wide
            axes.text(j + 0.5, i + 0.5, text, color=INK, fontsize=size, ha="center", va="center_baseline")


def _strength(count: float, most: int) -> float:
    """Return the opacity of a cell; texts on the strongest are still legible on light and dark pages."""
    return 0.08 + 0.5 * math.sqrt(count / most)


def _color_key(axes: Axes, most: int, cell: int) -> None:
    """Draw cells of a few counts up to ``most`` below a matrix whose cells have ``cell`` pixels."""
    counts = sorted({1, max(round(most / 16), 1), max(round(most / 4), 1), most})
    left, top, side = 0.0, axes.get_ylim()[0] + 12 / cell, 12 / cell
    for count in counts:
        box = Rectangle((left, top), side, side, color=COLORS[0], alpha=_strength(count, most), lw=0, clip_on=False)
        axes.add_patch(box)
        axes.text(left + side * 1.4, top + side / 2, str(count), va="center_baseline", fontsize=10)
        left += side * 2.4 + 7 * len(str(count)) / cell


def heat_map(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    color_map: str,
    meaning: str,
    numbers: bool = True,
) -> None:
    """Draw ``values`` (R, C) as colored cells above a color bar; NaN is left empty. Call it within ``plot_style``.

    ``color_map`` is one of matplotlib's; its colors run from the lower to the upper of ``limits``. ``meaning`` names the
    values under the color bar. ``numbers`` writes the values into the cells.
    """
    cells = axes.imshow(values, cmap=color_map, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    _color_bar(axes, cells, meaning)
    for i, j in np.argwhere(np.isfinite(values)).tolist() if numbers else []:
        bright = np.dot(cells.to_rgba(values[i, j])[:3], (0.299, 0.587, 0.114)) > 0.5
        ink = "black" if bright else "white"
        axes.text(j, i, f"{values[i, j]:.2f}", color=ink, fontsize=9, ha="center", va="center_baseline")


def _color_bar(axes: Axes, cells: AxesImage, meaning: str) -> None:
    """Draw the color bar of ``cells`` below ``axes``, which may be narrower, with three numbers and ``meaning``."""
    width, height = (
        72 * side * share for side, share in zip(figure_of(axes).get_size_inches(), axes.get_position(original=True).size)
    )
    place = axes.inset_axes((0, -(BAR_GAP + 10) / height, max(width, 150) / width, 10 / height))
    bar = axes.figure.colorbar(cells, place, orientation="horizontal")
    low, high = cells.get_clim()
    bar.set_ticks([low, (low + high) / 2, high], labels=[f"{value:.2g}" for value in (low, (low + high) / 2, high)])
    bar.outline.set_visible(False)
    bar.set_label(meaning, loc="left")


def shortened(text: str, most: int = 24) -> str:
    """Return ``text``, or its beginning and end if it has more than ``most`` characters: names often differ at the end."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
