"""The figure of the study of dynamic layers: what shuffling the routing costs, and what an arm gains over plain."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.dynamic_tables import PLAIN
from benchmarks.figure_files import FIGURES
from detector.imaging.plot_style import COLORS, MUTED, plot_style

FIGURE = FIGURES / "dynamic_study.svg"


def save_figure(content: dict[str, Any], path: Path | None = None) -> None:
    """Draw the numbers of ``dynamic_study.report`` into an SVG file, by default FIGURE."""
    path = path or FIGURE
    stages = [stage for stage in content["help"] if len(content["help"][stage]) > 1 and content["dynamic"][stage]]
    with plot_style():
        figure = Figure(figsize=(13, 1.4 + 2.6 * max(len(stages), 1)), layout="constrained")
        axes = figure.subplots(max(len(stages), 1), 2, squeeze=False)
        for row, stage in zip(axes, stages):
            arms = list(content["help"][stage])
            draw_losses(row[0], content["dynamic"].get(stage, {}), arms, stage)
            draw_gains(row[1], content["help"][stage], arms, stage)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    print(f"written to {path}")


def draw_losses(axes: Axes, diagnoses: dict[str, dict[int, Any]], arms: list[str], stage: str) -> None:
    """Draw the loss of macro AP when images get the routing of other images, one point for each run."""
    for place, arm in enumerate(arms):
        runs = list(diagnoses.get(arm, {}).values())
        for n, numbers in enumerate(runs):
            loss = numbers["lost"]["shuffled"]
            draw_interval(axes, place + 0.16 * (n - (len(runs) - 1) / 2), loss["value"], loss["low"], loss["high"])
    finish(axes, arms, f"{stage}: macro AP lost by shuffling the routing")


def draw_gains(axes: Axes, numbers: dict[str, Any], arms: list[str], stage: str) -> None:
    """Draw the mean difference of macro AP to the plain network."""
    for place, arm in enumerate(arms):
        if one := numbers[arm]["minus"].get(PLAIN):
            half = one["half_width"] or 0
            draw_interval(axes, place, one["mean"], one["mean"] - half, one["mean"] + half)
    finish(axes, arms, f"{stage}: macro AP minus {PLAIN}")


def draw_interval(axes: Axes, place: float, value: float, low: float, high: float) -> None:
    """Draw a value and its interval."""
    axes.plot([low, high], [place, place], color=COLORS[0], linewidth=2)
    axes.plot([value], [place], "o", color=COLORS[0])


def finish(axes: Axes, arms: list[str], title: str) -> None:
    """Set title, names of the arms and the line of zero."""
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_title(title, loc="left")
