"""The figure of the blocks of the network in docs/how-it-is-built.md: ``python -m benchmarks.figures_blocks`` draws it.

Each panel has the name of a class in detector/network/blocks.py, the name that papers use, and the modules of the class.
"""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.common import option_parser
from benchmarks.figure_files import FIGURES, write_figure
from detector.imaging.plot_files import Plot, finish
from detector.imaging.plot_style import COLORS, INK, MUTED, plot_style

WIDTH, ROW, TITLE = 280, 38, 44  # width of a panel, heights of a step and a title, in px
BOX, LANE = 20, 16  # height of a box, distance of the lines beside it, in px


@dataclass(frozen=True)
class Block:
    """A chain of steps from top to bottom, and lines that lead past some of them."""

    name: str  # of the class in detector/network/blocks.py
    paper: str  # the name that papers use
    steps: tuple[tuple[str, str], ...]  # module of the class ("" for an operation), and what it is
    past: tuple[tuple[int, int, int, str], ...]  # from step (-1: input), to step, lane (left below 0), text


BLOCKS = (
    Block(
        "CSPStage",
        "C3k2",
        (("split", "1x1"), ("blocks.0", "inner block"), ("blocks.1", "inner block"), ("", "concatenate"), ("merge", "1x1")),
        ((0, 3, -1, "first\nhalf"), (1, 3, 1, ""), (0, 3, 2, "second\nhalf")),
    ),
    Block(
        "AttentionStage",
        "C2PSA",
        (("split", "1x1"), ("blocks", "n PSA blocks"), ("", "concatenate"), ("merge", "1x1")),
        ((0, 2, -1, "first\nhalf"),),
    ),
    Block(
        "C3k",
        "C3k",
        (("main", "1x1"), ("blocks", "2 bottlenecks"), ("", "concatenate"), ("merge", "1x1")),
        ((-1, 2, 1, "side: 1x1"),),
    ),
    Block(
        "PSABlock",
        "PSA block",
        (("attention", "self-attention"), ("", "add"), ("feed_forward", "1x1, 1x1"), ("", "add")),
        ((-1, 1, 1, "input"), (1, 3, 1, "")),
    ),
    Block(
        "SPPF",
        "SPPF",
        (("reduce", "1x1"), *3 * (("", "max 5x5"),), ("", "concatenate"), ("merge", "1x1"), ("", "add")),
        ((-1, 6, -1, "input"), (2, 4, 1, ""), (1, 4, 2, ""), (0, 4, 3, "")),
    ),
    Block(
        "Bottleneck",
        "Bottleneck",
        (("conv1", "3x3"), ("conv2", "3x3"), ("", "add")),
        ((-1, 2, 1, "input"),),
    ),
)  # fmt: skip


@plot_style()
def blocks_figure() -> Plot:
    """Return the figure: two blocks in each row."""
    pairs = list(zip(BLOCKS[::2], BLOCKS[1::2]))
    heights = [TITLE + ROW * (max(len(block.steps) for block in pair) + 1) for pair in pairs]
    figure = Figure(figsize=(2 * WIDTH / 72, sum(heights) / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 2 * WIDTH), ylim=(sum(heights), 0))
    axes.set_axis_off()
    for row, pair in enumerate(pairs):
        for column, block in enumerate(pair):
            draw_block(axes, block, column * WIDTH, sum(heights[:row]) + TITLE)
    words = [
        f"{block.name} ({block.paper}): {', then '.join(' '.join(step).strip() for step in block.steps)}" for block in BLOCKS
    ]
    return finish("blocks", "The blocks of the network", words, axes)


def draw_block(axes: Axes, block: Block, left: float, top: float) -> None:
    """Draw a block whose input is at the height ``top``; all sizes in px."""
    axes.text(left + 4, top - 26, block.name, color=INK, fontsize=13, weight="bold")
    if block.paper != block.name:
        axes.text(left + 4, top - 11, f"in papers: {block.paper}", color=MUTED, fontsize=11)
    x, heights = left + WIDTH / 2, {step: top + ROW * (step + 1) for step in range(-1, len(block.steps) + 1)}
    for number, (module, operation) in enumerate(block.steps):
        draw_arrow(axes, (x, heights[number - 1] + (BOX / 2 if number else ROW / 4)), (x, heights[number] - BOX / 2))
        color = COLORS[0] if module else MUTED
        half = step_width(module, operation) / 2
        axes.add_patch(Rectangle((x - half, heights[number] - BOX / 2), 2 * half, BOX, fill=False, edgecolor=color))
        text = f"{module}: {operation}" if module else operation
        axes.text(x, heights[number], text, color=color, ha="center", va="center", fontsize=11)
    draw_arrow(axes, (x, heights[len(block.steps) - 1] + BOX / 2), (x, heights[len(block.steps)] - ROW / 4))
    for start, end, lane, text in block.past:
        half = max(step_width(*step) for step in block.steps[max(start, 0) : end]) / 2
        side = x + (half + 10 + LANE * (abs(lane) - 1)) * (1 if lane > 0 else -1)
        draw_line_past(axes, x, side, heights[start] + ROW / 2 - 1, heights[end] - ROW / 2 + 1, text)


def step_width(module: str, operation: str) -> float:
    """Return the width of a step, in px: room for its text in any font."""
    return 6.7 * len(f"{module}: {operation}" if module else operation) + 14


def draw_line_past(axes: Axes, x: float, side: float, start: float, end: float, text: str) -> None:
    """Draw a line from the chain at ``x`` out to ``side`` and back, between the heights ``start`` and ``end``."""
    axes.plot([x, side, side], [start, start, end], color=MUTED, linewidth=1)
    draw_arrow(axes, (side, end), (x, end))
    align, offset = ("left", 4) if side > x else ("right", -4)
    axes.text(side + offset, (start + end) / 2, text, color=MUTED, fontsize=10, ha=align, va="center")


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": MUTED, "shrinkA": 0, "shrinkB": 0})


def main() -> None:
    """Draw the figure."""
    parser = option_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=FIGURES, help="of the figure (%(default)s)")
    write_figure(blocks_figure(), parser.parse_args().folder)


if __name__ == "__main__":
    main()
