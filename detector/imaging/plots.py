"""Lines, bars, histograms, matrices and heat maps by matplotlib, without its global state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from detector.imaging.plot_files import TOOLTIP, Plot, finish
from detector.imaging.plot_style import COLORS, INK, RULE, plot_style, use_fonts

STEPS = (1, 2, 5, 10)  # of ticks, times a power of 10


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
    y_limits: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (330, 200),
) -> Plot:
    """Return curves with axes of ``size`` (width, height); without limits they fit the values.

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
    below = {"loc": "upper left", "bbox_to_anchor": (0, -34 / size[1]), "borderpad": 0, "borderaxespad": 0}
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
) -> Plot:
    """Return horizontal bars: for each of the ``labels`` a bar of every series in ``values``, its text behind it."""
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
    axes.set(xlim=(0, highest or 1), ylim=(height, 0), xticks=[])
    axes.set_yticks([(n + 0.5) * row for n in range(len(labels))], [shortened(label) for label in labels])
    axes.spines[:].set_visible(False)
    words = [f"{label}: {', '.join(' '.join((s, texts[s][n])).strip() for s in values)}" for n, label in enumerate(labels)]
    return finish(name, title, words, axes)


@plot_style()
def histogram(name: str, title: str, values: Mapping[str, np.ndarray], edges: np.ndarray, colors: Sequence[str]) -> Plot:
    """Return bars: which share of each series in ``values`` lies between two ``edges``; outer bins hold all beyond them."""
    axes, words = _axes((480, 200)), []
    width = 0.9 / len(values)
    for number, (series, color) in enumerate(zip(values, colors)):
        inside = np.clip(values[series], edges[0], np.nextafter(edges[-1], -np.inf))
        shares = np.histogram(inside, edges)[0] / max(len(inside), 1)
        texts = [f"{series}: {shares[n]:.1%} from {edges[n]:.3g} to {edges[n + 1]:.3g}" for n in range(len(shares))]
        _set_tooltips(axes.bar(np.arange(len(shares)) + number * width, shares, width, align="edge", color=color), texts)
        words.append(f"highest bar of {texts[shares.argmax()]}")
    axes.set(xlim=(0, len(edges) - 1), ylim=(0, None))
    ticks = range(0, len(edges), max(len(edges) // 8, 1))
    axes.set_xticks(ticks, [f"{edges[n]:.4g}" for n in ticks])
    axes.locator_params("y", nbins=4, steps=STEPS)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y")
    return finish(name, title, words, axes)


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
    return finish(name, title, [f"{right} on the diagonal, {int(counts.sum()) - right} beside it"], axes)


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
    use_fonts(axes)


def shortened(text: str, most: int = 24) -> str:
    """Return ``text``, or its beginning if it has more than ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
