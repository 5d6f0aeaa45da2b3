"""What do the two branches learn about one object, and what do they answer? The figures of docs/why-no-nms.md.

``python -m benchmarks.figures_nms_free runs/shapes/best.ckpt`` draws, for one object of an image of the embedded data set,
the anchors that each branch assigns to it and the raw scores around it. It also counts the boxes for each object in the
validation images, before and after NMS. ``--simple`` takes the images of ``make demo``.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.common import option_parser, print_table
from benchmarks.figure_files import FIGURES, write_figure
from data.shapes.draw import EMBEDDED, SIMPLE, Style, draw_image
from detector import Predictor, load_detector
from detector.imaging.letterbox import to_canvas
from detector.imaging.plot_files import Plot, finish
from detector.imaging.plot_style import plot_style
from detector.network.decode import boxes_and_scores, decode
from detector.network.head import BranchName
from detector.training.loss import flatten_targets, match_branch

TITLES: dict[BranchName, str] = {"one2many": "one-to-many (with NMS)", "one2one": "one-to-one (NMS-free)"}
SIDE, GAP, MARGIN = 220, 16, 14  # of a panel, in px of the figure; around the object, in px of the network input
POSITIVE, NEGATIVE = "#e8590c", "#ffffff"  # on the image, so the same on light and dark pages
MIN_SCORE = 0.25  # detections have at least this score, in figures and counts


class View(NamedTuple):
    """An image for the network, its objects, and the answers of one branch."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB, the network input
    boxes: Tensor  # (N, 4) of the objects, x1 y1 x2 y2 in pixels of the network input
    labels: Tensor  # (N,)
    points: Tensor  # (A, 2) x y of the anchors, in pixels
    strides: Tensor  # (A,) pixels per cell
    positives: list[Tensor]  # for each object, the anchors that are assigned to it
    predicted: Tensor  # (A, 4) boxes, as ``boxes``
    scores: Tensor  # (A, C) in 0..1
    kept: dict[str, Tensor]  # the final detections


def views(predictor: Predictor, index: int, style: Style = EMBEDDED) -> dict[BranchName, View]:
    """Return the view of each branch on the validation image ``index`` of the set of drawn images in ``style``."""
    drawing = draw_image(0, "val", index, style)
    images, (placement,) = predictor.prepare([np.ascontiguousarray(drawing.image[..., ::-1])])  # BGR to RGB
    boxes, labels = torch.from_numpy(to_canvas(drawing.boxes, placement)).float(), torch.tensor(drawing.labels)
    objects = flatten_targets([{"boxes": boxes.view(-1, 4), "labels": labels}])
    with torch.inference_mode():
        outputs = predictor.model(images)
    points, strides = outputs["points"], outputs["strides"]
    pixels = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    result = {}
    for branch in TITLES:
        matches = match_branch(branch, outputs[branch], points, strides, objects)
        positives = [matches.anchor[matches.object == n] for n in range(len(labels))]
        predicted, scores = (x[0] for x in boxes_and_scores(outputs, branch))
        (kept,) = decode(outputs, branch, MIN_SCORE)
        grid = points * strides[:, None], strides
        result[branch] = View(pixels, objects.boxes, objects.labels, *grid, positives, predicted, scores, kept)
    return result


@plot_style()
def assignment_figure(branches: dict[BranchName, View], number: int) -> Plot:
    """Return the image of object ``number`` with the anchors that each branch assigns to it."""
    panels, words = _panels(branches, number, rows=1), []
    for (branch, view), axes in zip(branches.items(), panels[0]):
        box, positives = view.boxes[number], view.positives[number]
        inside = ((view.points > box[:2]) & (view.points < box[2:])).all(dim=1)
        for stride in view.strides.unique().tolist():
            on_level = view.strides == stride
            axes.scatter(*view.points[on_level & inside].T, s=2 * stride, facecolor="none", edgecolor=NEGATIVE, linewidth=1)
            chosen = positives[on_level[positives]]
            axes.scatter(*view.points[chosen].T, s=9 * stride, color=POSITIVE, edgecolor=NEGATIVE, linewidth=1.5)
        axes.set_title(f"{TITLES[branch]}\n{len(positives)} positive of {int(inside.sum())} anchors inside", loc="left")
        words.append(f"{TITLES[branch]}: {len(positives)} positive of {int(inside.sum())} anchors inside the object")
    return finish("assigned_anchors", "Anchors that each branch assigns to one object", words, panels[0][0])


@plot_style()
def scores_figure(branches: dict[BranchName, View], number: int) -> Plot:
    """Return the raw scores of each branch around object ``number``, and below the boxes with a score above MIN_SCORE."""
    panels, words = _panels(branches, number, rows=2), []
    for column, (branch, view) in enumerate(branches.items()):
        scores = view.scores[:, view.labels[number]]
        upper, lower = panels[0][column], panels[1][column]
        _draw_scores(upper, view, scores)
        upper.set_title(f"{TITLES[branch]}\nraw scores at stride {int(view.strides.min())}", loc="left")
        found = (scores > MIN_SCORE) & (box_iou(view.boxes[number][None], view.predicted)[0] > 0.5)
        for box in view.predicted[found].tolist():
            _draw_box(lower, box, POSITIVE, 1.5)
        text = "1 box" if found.sum() == 1 else f"{int(found.sum())} boxes"
        lower.set_title(f"{text} above {MIN_SCORE}, before NMS", loc="left")
        best = ", ".join(f"{score:.2f}" for score in scores[found].sort(descending=True).values.tolist())
        words.append(f"{TITLES[branch]}: {text} above {MIN_SCORE}, with scores {best}")
    return finish("raw_scores", "Raw scores of both branches around one object", words, panels[0][0])


def _panels(branches: dict[BranchName, View], number: int, rows: int) -> list[list[Axes]]:
    """Return axes in ``rows`` and a column for each branch, each with the part of the image around object ``number``."""
    height = rows * SIDE + (rows - 1) * 2 * GAP
    figure = Figure(figsize=((2 * SIDE + GAP) / 72, height / 72))
    panels = []
    for row in range(rows):
        bottom = 1 - (SIDE + row * (SIDE + 2 * GAP)) / height
        lefts = (column * (SIDE + GAP) / (2 * SIDE + GAP) for column in range(2))
        panels.append([figure.add_axes((x, bottom, SIDE / (2 * SIDE + GAP), SIDE / height)) for x in lefts])
        for axes, view in zip(panels[-1], branches.values()):
            _draw_image(axes, view, number)
    return panels


def _draw_image(axes: Axes, view: View, number: int) -> None:
    """Draw the square part of the image around object ``number``, and its box."""
    box = view.boxes[number]
    center, half = ((box[:2] + box[2:]) / 2).tolist(), float((box[2:] - box[:2]).max()) / 2 + MARGIN
    height, width = view.pixels.shape[:2]
    axes.imshow(view.pixels, extent=(0, width, height, 0), aspect="auto", interpolation="none")
    axes.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] + half, center[1] - half), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    _draw_box(axes, box.tolist(), NEGATIVE, 1.5)


def _draw_box(axes: Axes, box: list[float], color: str, width: float) -> None:
    axes.add_patch(Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, edgecolor=color, linewidth=width))


def _draw_scores(axes: Axes, view: View, scores: Tensor) -> None:
    """Draw the score of each cell of the finest level: its color, and from 0.01 its number."""
    stride = float(view.strides.min())
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for (x, y), score in zip(view.points[view.strides == stride].tolist(), scores[view.strides == stride].tolist()):
        if not (left < x < right and top < y < bottom):
            continue
        color = to_rgba(POSITIVE, 0.15 + 0.85 * score) if score >= 0.01 else to_rgba("#000000", 0.35)
        corner = x - stride / 2, y - stride / 2
        axes.add_patch(Rectangle(corner, stride, stride, facecolor=color, edgecolor=to_rgba(NEGATIVE, 0.4), linewidth=0.5))
        if score >= 0.01:
            axes.text(x, y, f"{score:.2f}"[1:], color=NEGATIVE, fontsize=10, ha="center", va="center")


def boxes_per_object(predictor: Predictor, num_images: int, style: Style = EMBEDDED) -> dict[BranchName, dict[str, float]]:
    """Return for each branch how many boxes an object has, on average over the objects that have one.

    A box belongs to an object of its class if their IoU is above 0.5 and its score above MIN_SCORE. ``found`` is the share
    of the objects with a box, ``raw`` counts all anchors, ``final`` the detections: after NMS, in the branch that needs it.
    """
    raw, final = {branch: [] for branch in TITLES}, {branch: [] for branch in TITLES}
    for index in range(num_images):
        for branch, view in views(predictor, index, style).items():
            scores = view.scores[:, view.labels].T  # (N, A)
            near = box_iou(view.boxes, view.predicted) > 0.5
            raw[branch] += ((scores > MIN_SCORE) & near).sum(dim=1).tolist()
            same_class = view.labels[:, None] == view.kept["labels"]
            final[branch] += (same_class & (box_iou(view.boxes, view.kept["boxes"]) > 0.5)).sum(dim=1).tolist()
    return {branch: _mean_counts(np.array(raw[branch]), np.array(final[branch])) for branch in TITLES}


def _mean_counts(raw: np.ndarray, final: np.ndarray) -> dict[str, float]:
    found = final > 0
    return {"found": float(found.mean()), "raw": float(raw[found].mean()), "final": float(final[found].mean())}


def main() -> None:
    """Draw both figures and print the counts."""
    parser = option_parser(__doc__, image=26, object=0, count_images=200, simple=False)
    parser.add_argument("checkpoint", help="of a detector of drawn images, such as runs/shapes/best.ckpt")
    parser.add_argument("--folder", type=Path, default=FIGURES, help="of the figures (%(default)s)")
    args = parser.parse_args()
    predictor, style = load_detector(args.checkpoint), SIMPLE if args.simple else EMBEDDED
    branches = views(predictor, args.image, style)
    write_figure(assignment_figure(branches, args.object), args.folder)
    write_figure(scores_figure(branches, args.object), args.folder)
    counts = boxes_per_object(predictor, args.count_images, style)
    head = ["", "objects found", "boxes each, raw", "boxes each, final"]
    rows = [[TITLES[b], f"{c['found']:.0%}", f"{c['raw']:.2f}", f"{c['final']:.2f}"] for b, c in counts.items()]
    print_table(head, *rows)


if __name__ == "__main__":
    main()
