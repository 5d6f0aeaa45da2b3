"""The figure of the study of pre-training, like ParameterNet's figure 1: accuracy by multiply-adds."""

from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pretraining.settings import LITTLE, MUCH, NETWORKS, SCRATCH
from benchmarks.pretraining.tables import FINETUNE, NUMBER, STAGES
from detector.imaging.plot_style import COLORS, MUTED, plot_style

TITLES = {FINETUNE: "labeled set: top-1 after fine-tuning"}
SIDESTEP = 0.06  # between the starts of a network, as a share of the distance between the networks


def save_figure(content: dict[str, Any], path: Path) -> None:
    """Draw the numbers of the study's report into an SVG file."""
    stages = [stage for stage in STAGES[1:] if stage in content["stages"]]
    with plot_style():
        figure = Figure(figsize=(1 + 4.2 * max(len(stages), 1), 4), layout="constrained")
        for axes, stage in zip(figure.subplots(1, max(len(stages), 1), squeeze=False)[0], stages):
            draw_stage(axes, stage, content["stages"][stage]["networks"], content["costs"])
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    print(f"written to {path}")


def draw_stage(axes: Axes, stage: str, numbers: dict[str, Any], costs: dict[str, Any]) -> None:
    """Draw for each network its runs from scratch, after little and after much data, and an arrow from little to much."""
    millions = {network: costs[network]["multiply_adds"] / 1e6 for network in NETWORKS}
    step = SIDESTEP * (max(millions.values()) - min(millions.values()) or 1)
    for network, x in millions.items():
        ends = {}
        for n, (start, color) in enumerate(((SCRATCH, MUTED), (LITTLE, COLORS[0]), (MUCH, COLORS[1]))):
            if not (values := list(numbers[network]["by seed"].get(start, {}).values())):
                continue
            at = x + (n - 1) * step
            axes.plot([at] * len(values), values, ".", color=color, alpha=0.5)
            axes.plot([at], [mean(values)], "o", color=color, label=start if network == next(iter(NETWORKS)) else None)
            ends[start] = (at, mean(values))
        if LITTLE in ends and MUCH in ends:
            axes.annotate("", ends[MUCH], ends[LITTLE], arrowprops={"arrowstyle": "->", "color": MUTED})
    axes.set_xticks(list(millions.values()), [f"{network}\n{x:.1f} M" for network, x in millions.items()])
    axes.set_xlabel("multiply-adds of the classifier's backbone")
    axes.margins(x=0.25)
    axes.set_title(TITLES.get(stage, f"{stage}: {NUMBER[stage]}"), loc="left")
    axes.legend()
