"""Lines, bars, histograms, matrices and heat maps by matplotlib, without its global state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from detector.imaging.plot_files import TOOLTIP, Plot, finish
from detector.imaging.plot_style import COLORS, INK, RULE, plot_style, use_fonts


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
        gid = TOOLTIP + line.name if line.name else None
        axes.plot(line.x, line.y, color=line.color, linewidth=line.width, linestyle=line.dashes, gid=gid)
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
    return finish(name, title, [line.in_words() for line in lines], axes)


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
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
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
