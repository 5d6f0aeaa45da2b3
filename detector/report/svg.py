"""Plots as SVG inside a page of ``detector.report.page``, whose colors they use. Every plot says in words what it shows."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np

Place = Callable[[float, float], tuple[float, float]]  # values to pixels
COLORS = tuple(f"var(--c{n})" for n in range(8))


@dataclass(frozen=True)
class Line:
    """One curve. Values that are not finite leave a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str = COLORS[0]
    width: float = 1.8
    dashed: bool = False


def figure(title: str, body: str, view: tuple[float, float, float, float], describe: str = "") -> str:
    """Return a figure of SVG elements; ``view`` is left, top, width and height, ``describe`` what a listener must know."""
    box = " ".join(f"{value:g}" for value in view)
    label = escape(f"{title}. {describe}" if describe else title, quote=True)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" aria-label="{label}" '
        f'viewBox="{box}" width="{view[2]:g}" height="{view[3]:g}">{body}</svg></figure>'
    )


def bar(x: float, y: float, width: float, height: float, color: str, label: str) -> str:
    """Return a rectangle that says ``label`` under the pointer."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{color}"><title>{escape(label)}</title></rect>'


def text(x: float, y: float, content: str, anchor: str = "start", style: str = "") -> str:
    """Return a piece of text; ``anchor`` is start, middle or end."""
    more = f' style="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(content)}</text>'


def text_width(content: str) -> float:
    """Return how many pixels ``content`` takes at most, about: fonts differ, and a label that is cut off says nothing."""
    return sum(4.5 if c in " .,:;'|!()ijlft" else 11.0 if c in "MWmw@%" or _is_wide(c) else 7.6 for c in content)


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def shortened(content: str, most: float) -> str:
    """Return ``content``, or as much of it as fits into ``most`` pixels."""
    if text_width(content) <= most:
        return content
    while content and text_width(content + "…") > most:
        content = content[:-1]
    return content + "…"


def line_plot(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (330, 200),
) -> str:
    """Return curves with axes; without limits they fit the values. ``mark`` is a vertical line at x, and its name."""
    width, height = size
    low_x, high_x = x_limits or _limits([line.x for line in lines])
    low_y, high_y = y_limits or _limits([line.y for line in lines])

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - low_x) / (high_x - low_x) * width, height - (y - low_y) / (high_y - low_y) * height

    x_ticks, y_ticks = ticks(low_x, high_x, 6), ticks(low_y, high_y, 5)
    left = 10 + max([36.0, *(text_width(_tick_text(tick)) for tick in y_ticks)])
    right = max([14.0, *(place(tick, 0)[0] + text_width(_tick_text(tick)) / 2 - width for tick in x_ticks)])
    parts = [_axes(place, x_ticks, y_ticks, size), text(width, height + 30, x_label, "end")]
    if mark is not None:
        x, _ = place(mark[0], 0)
        parts.append(f'<path d="M{x:.1f} 0V{height}" stroke="var(--ink)" stroke-dasharray="2 3"/>')
        anchor = "end" if x > width * 0.6 else "start"
        parts.append(text(x + (-4 if anchor == "end" else 4), 12, mark[1], anchor))
    parts += [_curve(line, place) for line in lines]
    named = [line for line in lines if line.name]
    for n, line in enumerate(named):
        y = height + 48 + 15 * n
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        parts.append(f'<path d="M0 {y - 4}h16" stroke="{line.color}" stroke-width="2.5"{dash}/>')
        parts.append(text(22, y, shortened(line.name, width + right - 22)))
    view = (-left, -10, left + width + right, height + 50 + 15 * len(named))
    return figure(title, "".join(parts), view, _in_words(named))


def _curve(line: Line, place: Place) -> str:
    finite = np.isfinite(line.x) & np.isfinite(line.y)
    dash = ' stroke-dasharray="4 3"' if line.dashed else ""
    style = f'fill="none" stroke="{line.color}" stroke-width="{line.width}" stroke-linejoin="round"{dash}'
    drawn = []
    for whole, run in groupby(range(len(finite)), key=lambda n: bool(finite[n])):
        points = [place(float(line.x[n]), float(line.y[n])) for n in run] if whole else []
        if len(points) == 1:  # a single epoch is a dot
            drawn.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3" fill="{line.color}"/>')
        elif points:
            drawn.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" {style}/>')
    return f"<g><title>{escape(line.name)}</title>{''.join(drawn)}</g>"


def _axes(place: Place, x_ticks: list[float], y_ticks: list[float], size: tuple[int, int]) -> str:
    width, height = size
    parts = []
    for tick in y_ticks:
        _, y = place(0, tick)
        parts.append(f'<path d="M0 {y:.1f}H{width}" stroke="var(--line)"/>' + text(-6, y + 4, _tick_text(tick), "end"))
    for tick in x_ticks:
        x, _ = place(tick, 0)
        parts.append(f'<path d="M{x:.1f} {height}v4" stroke="var(--muted)"/>')
        parts.append(text(x, height + 16, _tick_text(tick), "middle"))
    return "".join(parts) + f'<path d="M0 {height}H{width}" stroke="var(--muted)"/>'


def _tick_text(tick: float) -> str:
    return f"{tick:.10g}"  # ticks are round numbers


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return limits around all finite values, never equal."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if len(values) else np.empty(0)
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = (high - low) * 0.02 or max(abs(high) * 0.1, 0.5)
    return low - margin, high + margin


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about ``about`` of them."""
    rough = (high - low) / about
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _in_words(lines: Sequence[Line]) -> str:
    """Return first, last, lowest and highest value of every curve."""
    said = []
    for line in lines:
        y = line.y[np.isfinite(line.y)]
        if len(y):
            said.append(f"{line.name}: from {y[0]:.3g} to {y[-1]:.3g}, lowest {y.min():.3g}, highest {y.max():.3g}")
    return "; ".join(said)


def matrix(title: str, counts: np.ndarray, names: Sequence[str], rows_are: str, columns_are: str) -> str:
    """Return counts (C, C) as a map, shaded by share of the row, with numbers if there is room for them.

    Cells with 0 are left empty. ``rows_are`` and ``columns_are`` say what the axes mean.
    """
    number = len(names)
    cell = 46 if number <= 12 else max(9, 420 // number)
    side, left = number * cell, 10 + max(text_width(_short(name)) for name in [*names, rows_are])
    slanted = left * 0.75  # what names at 45 degrees need
    heads = [text(0, -slanted - 8, columns_are), text(-left, -8, rows_are)]
    frame = f'<rect x="0" y="0" width="{side}" height="{side}" fill="none" stroke="var(--line)"/>'
    body = "".join([*heads, *_names(names, cell), *_cells(counts, names, cell), frame])
    view = (-left - 4, -slanted - 24, left + side + slanted + 8, slanted + side + 32)
    return f'<div class="scroll">{figure(title, body, view, "The table below has the largest numbers")}</div>'


def _names(names: Sequence[str], cell: int) -> list[str]:
    parts = []
    for n in range(0, len(names), math.ceil(11 / cell)):  # where all would lie on each other, they are under the pointer
        middle = (n + 0.5) * cell
        parts.append(text(-6, middle + 4, _short(names[n]), "end"))
        parts.append(f'<g transform="translate({middle + 3:.1f} -6) rotate(-45)">{text(0, 0, _short(names[n]))}</g>')
    return parts


def _cells(counts: np.ndarray, names: Sequence[str], cell: int) -> list[str]:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = []
    for i, j in zip(*(places.tolist() for places in np.nonzero(counts))):
        label = escape(f"{names[i]} as {names[j]}: {counts[i, j]} ({shares[i, j]:.0%} of {names[i]})")
        place = f'x="{j * cell}" y="{i * cell}" width="{cell - 1}" height="{cell - 1}"'
        shade = f'fill="var(--heat)" fill-opacity="{0.12 + 0.6 * shares[i, j]:.2f}"'
        parts.append(f"<rect {place} {shade}><title>{label}</title></rect>")
        if cell >= 46:
            parts.append(text((j + 0.5) * cell, (i + 0.5) * cell + 4, f"{counts[i, j]}", "middle", "fill: var(--ink)"))
    return parts


def _short(name: str) -> str:
    return shortened(name, 130)


def bars(
    title: str, names: Sequence[str], values: Sequence[float], texts: Sequence[str], color: str, width: int = 190
) -> str:
    """Return horizontal bars, a name before and a text behind each."""
    highest = max([*values, 1e-9])
    left = 10 + max(map(text_width, names), default=0)
    right = 8 + max(map(text_width, texts), default=0)
    parts = []
    for n, (name, value, content) in enumerate(zip(names, values, texts)):
        long = value / highest * width
        parts += [text(-6, n * 20 + 12, name, "end"), bar(0, n * 20 + 1, long, 14, color, f"{name}: {content}")]
        parts.append(text(long + 5, n * 20 + 12, content))
    described = "; ".join(f"{name}: {content}" for name, content in zip(names, texts))
    return figure(title, "".join(parts), (-left, -2, left + width + right, len(names) * 20 + 4), described)
