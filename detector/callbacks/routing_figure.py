"""The figure of routing weights: dynamic layers by experts or gates, and by classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.dynamic.routing import LayerRouting
from detector.imaging.plot_files import enclose
from detector.imaging.plot_style import INK, legible, plot_style, use_fonts
from detector.imaging.plots import BAR_GAP, heat_map, shortened

LEAST_LIMIT = 0.01  # of the color scale of differences: smaller ones stay nearly white
ROW, COLUMN, EXPERT = 20, 46, 13  # pixels: a layer; a column beside its number, and within a class
EXPLANATIONS = {
    "entropy": "Entropy: 1 if all experts have the same mean routing weight, 0 if one has all.",
    "variation": "Variation: standard deviation of routing weights between images; at 0 the layer is a plain convolution.",
    "image share": "Image share: part of the variance of the routing weights that is between images.",
    "rho": "rho: variation of the kernel between images, relative to the kernel; compare kinds of layers by it.",
}


@dataclass(frozen=True)
class Cells:
    """The colored cells of a figure: a row for each layer, and columns."""

    columns: list[str]
    means: np.ndarray  # (layers, columns)
    by_class: np.ndarray  # (layers, classes, columns)
    kind: str  # of the columns: expert or gate
    meanings: tuple[str, str]  # of ``means`` and of ``by_class``
    color_maps: tuple[str, str]
    limits: tuple[tuple[float, float], tuple[float, float]]


@plot_style()
def routing_figure(results: Mapping[str, LayerRouting], class_names: list[str], max_classes: int = 20) -> Figure:
    """Draw a row for each layer: the mean routing weight of each expert, and to the right how classes differ from it.

    If no layer has experts, the columns are gates: how much they vary, and how far classes are from the mean. Gates have too
    many units to show each. The right part shows the first ``max_classes`` classes that occur; without any it is left out.
    """
    present = (~torch.isnan(next(iter(results.values())).by_class[:, 0])).nonzero().flatten().tolist()
    classes, names = present[:max_classes], legible(class_names)
    cells = _expert_cells(results, classes) if any(r.experts for r in results.values()) else _gate_cells(results, classes)
    height, num_columns = ROW * len(results), len(cells.columns)
    figure = Figure(figsize=(1, 1), dpi=72)  # until ``enclose``: the sizes below are in its inches
    means = figure.add_axes((0, 0, COLUMN * num_columns / 72, height / 72))
    width = _draw_means(means, cells, results)
    if present:
        left = COLUMN * num_columns + width
        axes = figure.add_axes((left / 72, 0, EXPERT * num_columns * len(classes) / 72, height / 72))
        _draw_classes(axes, cells, {n: names[n] for n in classes}, len(present))
    use_fonts(means)
    enclose(figure)
    return figure


def short_name(layer: str) -> str:
    """Return the name of a layer as it is logged and shown."""
    return layer.removeprefix("model.").removesuffix(".conv")


def _expert_cells(results: Mapping[str, LayerRouting], classes: Sequence[int]) -> Cells:
    """Return a column for each expert; layers with fewer experts leave cells empty."""
    num_experts = max(len(experts.mean) for routing in results.values() if (experts := routing.experts))
    means, by_class = _empty(len(results), classes, num_experts)
    for n, routing in enumerate(results.values()):
        if (experts := routing.experts) is not None:
            means[n, : len(experts.mean)] = experts.mean
            by_class[n, :, : len(experts.mean)] = (experts.by_class - experts.mean)[list(classes)]
    limit = max(float(np.nanmax(np.abs(by_class), initial=0)), LEAST_LIMIT)
    meaning = "mean over images with the class,\nminus mean over all images (red: more, blue: less)"
    is_signed = float(np.nanmin(means)) < 0
    return Cells(
        columns=[str(i) for i in range(num_experts)],
        means=means,
        by_class=by_class,
        kind="expert",
        meanings=("mean routing weight\nover the images", meaning),
        color_maps=("RdBu_r" if is_signed else "viridis", "RdBu_r"),
        limits=((-1 if is_signed else 0, 1), (-limit, limit)),
    )


def _gate_cells(results: Mapping[str, LayerRouting], classes: Sequence[int]) -> Cells:
    """Return a column for each gate."""
    gates = list(dict.fromkeys(gate for routing in results.values() for gate in routing.units))
    means, by_class = _empty(len(results), classes, len(gates))
    for n, routing in enumerate(results.values()):
        for gate in routing.units:
            part = routing.gate(gate)
            means[n, gates.index(gate)] = part.variation
            differences = (part.by_class - part.mean)[list(classes)].square().mean(dim=1).sqrt()
            by_class[n, :, gates.index(gate)] = differences
    highest = [max(float(np.nanmax(values, initial=0)), LEAST_LIMIT) for values in (means, by_class)]
    meaning = "distance of the mean over images with the class\nfrom the mean over all images, by unit"
    return Cells(
        columns=gates,
        means=means,
        by_class=by_class,
        kind="gate",
        meanings=("variation between images,\nmean over the units", meaning),
        color_maps=("viridis", "Reds"),
        limits=((0, highest[0]), (0, highest[1])),
    )


def _empty(num_layers: int, classes: Sequence[int], num_columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((num_layers, num_columns), np.nan), np.full((num_layers, len(classes), num_columns), np.nan)


def _draw_means(axes: Axes, cells: Cells, results: Mapping[str, LayerRouting]) -> int:
    """Draw the left cells, and columns of numbers beside them; return the width of these in pixels."""
    labels = [short_name(name) for name in results]
    heat_map(axes, cells.means, labels, cells.columns, cells.limits[0], cells.color_maps[0], cells.meanings[0])
    axes.set_xlabel(cells.kind, loc="left")
    axes.xaxis.set_label_position("top")
    axes.text(-0.5 - 4 / COLUMN, -1, "layer", ha="right", va="center_baseline")
    right, columns = 10, _number_columns(results)
    for head, texts in columns.items():
        right += 6 * max(map(len, (head, *texts))) + 12
        x = len(cells.columns) - 0.5 + right / COLUMN
        for n, text in enumerate((head, *texts), start=-1):
            axes.text(x, n, text, ha="right", va="center_baseline")
    place: dict[str, Any] = {"xytext": (0, -(BAR_GAP + 70)), "xycoords": "axes fraction", "textcoords": "offset points"}
    explanation = "\n".join(text for head, text in EXPLANATIONS.items() if any(head in column for column in columns))
    axes.annotate(explanation, (0, 0), va="top", linespacing=1.5, **place)
    return right + 25


def _number_columns(results: Mapping[str, LayerRouting]) -> dict[str, list[str]]:
    """Return columns of numbers by their heads, a number for each layer; columns without any number are left out."""
    gates = dict.fromkeys(gate for routing in results.values() for gate in routing.units if gate != "expert")
    parts = {"": [routing.experts for routing in results.values()]}
    parts |= {f"{gate} ": [r.gate(gate) if gate in r.units else None for r in results.values()] for gate in gates}
    columns = {"entropy": ["" if part is None else f"{part.entropy:.2f}" for part in parts[""]]}
    for prefix, layers in parts.items():
        columns[f"{prefix}variation"] = ["" if part is None else f"{part.variation:.3f}" for part in layers]
        columns[f"{prefix}image share"] = ["" if part is None else f"{part.image_share:.2f}" for part in layers]
    rho = [routing.kernel_variation for routing in results.values()]
    columns["rho"] = ["" if np.isnan(value) else f"{value:.3f}" for value in rho]
    return {head: texts for head, texts in columns.items() if any(texts)}


def _draw_classes(axes: Axes, cells: Cells, classes: Mapping[int, str], num_present: int) -> None:
    """Draw layers by classes, the columns of a layer side by side in each; ``classes`` are names by label."""
    num_columns, num_layers = len(cells.columns), len(cells.means)
    columns = [name if cells.kind == "expert" else name[0] for name in cells.columns] * len(classes)
    some = f"; the first {len(classes)} of {num_present} classes" if num_present > len(classes) else ""
    values = cells.by_class.reshape(num_layers, -1)
    heat_map(axes, values, [], columns, cells.limits[1], cells.color_maps[1], cells.meanings[1] + some, numbers=False)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.vlines(np.arange(1, len(classes)) * num_columns - 0.5, -0.5, num_layers - 0.5, color=INK, linewidth=1)
    for n, name in enumerate(classes.values()):
        place = ((n + 0.5) * num_columns - 0.5, -0.5), (0, 16)
        axes.annotate(
            shortened(name), *place, textcoords="offset points", rotation=45, rotation_mode="anchor", ha="left", va="center"
        )
