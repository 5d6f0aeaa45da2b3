"""The figures of the pages in docs/."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import figures_nms_free
from benchmarks.figure_files import write_figure
from benchmarks.figures_blocks import BLOCKS, blocks_figure
from benchmarks.figures_nms_free import View, assignment_figure, boxes_per_object, scores_figure, views
from data.shapes.draw import SIMPLE
from detector import Predictor, build_detector
from detector.imaging.plot_style import INK
from detector.network import blocks
from detector.network.head import BranchName
from detector.weights import WeightsInfo

BOX = [8.0, 8.0, 24.0, 24.0]


def view(scores: list[float], positives: list[int], kept: int) -> View:
    """Return an image of 32 x 32 px with one object, 16 anchors of stride 8 that all predict its box, and their scores."""
    side = torch.arange(4) * 8.0 + 4
    points = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).view(-1, 2)
    boxes, predicted = torch.tensor([BOX]), torch.tensor([BOX]).expand(16, 4)
    all_scores = torch.zeros(16, 2)
    all_scores[: len(scores), 1] = torch.tensor(scores)
    final = {"boxes": predicted[:kept], "labels": torch.ones(kept, dtype=torch.int64)}
    pixels, strides = np.zeros((32, 32, 3), np.uint8), torch.full((16,), 8.0)
    return View(pixels, boxes, torch.tensor([1]), points, strides, [torch.tensor(positives)], predicted, all_scores, final)


@pytest.fixture
def branches() -> dict[BranchName, View]:
    return {"one2many": view([0.9, 0.8, 0.3, 0.1], [5, 6, 9], kept=1), "one2one": view([0.7, 0.1], [5], kept=1)}


def test_figures_say_what_each_branch_learns_and_answers(branches: dict[BranchName, View], tmp_path: Path) -> None:
    plot = assignment_figure(branches, 0)
    assert "one-to-many (with NMS): 3 positive of 4 anchors inside" in plot.svg
    assert "one-to-one (NMS-free): 1 positive of 4 anchors inside" in plot.svg
    scores = scores_figure(branches, 0).svg
    assert "one-to-many (with NMS): 3 boxes above 0.25, with scores 0.90, 0.80, 0.30" in scores
    assert "one-to-one (NMS-free): 1 box above 0.25, with scores 0.70" in scores
    write_figure(plot, tmp_path)
    svg = (tmp_path / "assigned_anchors.svg").read_text()
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert INK in svg.partition("</style>")[0]
    assert INK not in svg.partition("</style>")[2]  # texts have the color of a light or a dark page
    assert "prefers-color-scheme: dark" in svg


def test_boxes_per_object_are_means_over_objects_that_are_found(
    branches: dict[BranchName, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = {branch: view([0.1], [5], kept=0) for branch in branches}
    drawn = {SIMPLE: [branches, missed]}
    monkeypatch.setattr(figures_nms_free, "views", lambda predictor, index, style: drawn[style][index])
    counts = boxes_per_object(None, 2, SIMPLE)
    assert counts["one2many"] == {"found": 0.5, "raw": 3.0, "final": 1.0}
    assert counts["one2one"] == {"found": 0.5, "raw": 1.0, "final": 1.0}


def test_the_nms_free_branch_has_one_positive_anchor_for_each_object() -> None:
    torch.manual_seed(0)
    predictor = Predictor(build_detector("yolo26_n", 6), WeightsInfo("yolo26_n"), image_size=96)
    found = views(predictor, 2)  # an image with five objects
    assert len(found["one2one"].positives) == len(found["one2one"].labels) == 5
    assert all(len(anchors) <= 1 for anchors in found["one2one"].positives)
    assert 1 < max(len(anchors) for anchors in found["one2many"].positives) <= 10


def test_the_figure_of_the_blocks_names_classes_and_their_modules() -> None:
    examples = {
        "CSPStage": blocks.CSPStage(8, 8, 2),
        "AttentionStage": blocks.AttentionStage(8, 1),
        "C3k": blocks.C3k(8),
        "PSABlock": blocks.PSABlock(8, 1),
        "SPPF": blocks.SPPF(8),
        "Bottleneck": blocks.Bottleneck(8, 8),
    }
    assert [block.name for block in BLOCKS] == list(examples)
    for block in BLOCKS:
        modules = dict(examples[block.name].named_children())
        shown = {module.split(".")[0] for module, _ in block.steps if module} | {"side"} & modules.keys()
        assert shown == modules.keys()
        assert all(-1 <= start < end < len(block.steps) for start, end, _, _ in block.past)
    svg = blocks_figure().svg
    assert all(block.name in svg and block.paper in svg for block in BLOCKS)
