"""The assignment: a worked example, golden cases, a slow loop, and tiny objects."""

import pytest
import torch
from torch import Tensor

from detector.network.boxes import anchor_points, complete_iou
from detector.network.head import BRANCHES
from detector.training.assigner import FlatTargets, Matches, _candidate_pairs, _owner_per_cell, assign
from detector.training.loss import flatten_targets
from tests.detector.training.test_loss import CASES, golden_inputs


class WorkedExample:
    """The example in the docstring of detector/training/assigner.py: an empty image, and one with two objects."""

    objects = FlatTargets(
        boxes=torch.tensor([[0.0, 0, 18, 8], [6, 0, 32, 8]]),
        labels=torch.tensor([0, 1]),
        image_per_object=torch.tensor([1, 1]),
    )
    points = torch.tensor([[4.0, 4], [12, 4], [20, 4], [28, 4]])
    boxes = torch.tensor([[0.0, 0, 18, 8], [3, 0, 23, 8], [8, 0, 32, 8], [22, 0, 36, 8]]).expand(2, 4, 4)
    scores = torch.tensor([0.64, 0.25]).logit()[:, None].expand(2, 2, 4)


def test_worked_example_pairs_and_owners() -> None:
    example = WorkedExample
    pairs = _candidate_pairs(example.scores, example.boxes, example.points, example.objects, min_side=0.0)
    assert pairs.object.tolist() == [0, 0, 1, 1, 1]
    assert pairs.anchor.tolist() == [0, 1, 1, 2, 3]
    assert pairs.cell.tolist() == [4, 5, 5, 6, 7]
    assert pairs.overlap.tolist() == pytest.approx([1.00, 0.63, 0.55, 0.92, 0.23], abs=0.005)
    assert pairs.metric.tolist() == pytest.approx([0.80, 0.05, 0.01, 0.31, 0.00], abs=0.005)
    metrics = torch.zeros(2, 4).index_put((pairs.object, pairs.anchor), pairs.metric)
    owner_per_cell = _owner_per_cell(pairs, metrics, example.objects.image_per_object, top_k=2, num_cells=8)
    assert owner_per_cell.tolist() == [-1, -1, -1, -1, 0, 0, 1, -1]


def worked_example_matches(one_per_object: bool) -> Matches:
    example = WorkedExample
    return assign(example.scores, example.boxes, example.points, example.objects, 2, 0.0, one_per_object)


def test_worked_example_matches() -> None:
    matches = worked_example_matches(one_per_object=False)
    assert [indices.tolist() for indices in matches[:3]] == [[1, 1, 1], [0, 1, 2], [0, 0, 1]]
    assert matches.weight.tolist() == pytest.approx([1.00, 0.06, 0.92], abs=0.005)
    matches = worked_example_matches(one_per_object=True)
    assert [indices.tolist() for indices in matches[:3]] == [[1, 1], [0, 2], [0, 1]]
    assert matches.weight.tolist() == pytest.approx([1.00, 0.92], abs=0.005)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['name']}-{c['nc']}")
@pytest.mark.parametrize("branch", BRANCHES)
def test_golden_positives(case: dict, branch: str) -> None:
    outputs, targets = golden_inputs(case)
    objects = flatten_targets(targets)
    one2one = branch == "one2one"
    points, strides = outputs["points"], outputs["strides"]
    left_top, right_bottom = outputs[branch]["boxes"].detach().transpose(1, 2).chunk(2, dim=2)
    boxes = torch.cat((points - left_top, points + right_bottom), dim=2) * strides[:, None]
    matches = assign(
        outputs[branch]["scores"],
        boxes,
        points * strides[:, None],
        objects,
        7 if one2one else 10,
        case["strides"][1],
        one2one,
    )
    first = [int((objects.image_per_object < i).sum()) for i in range(len(targets))]
    triples = zip(matches.image.tolist(), matches.anchor.tolist(), matches.object.tolist(), matches.weight.tolist())
    actual = {(i, a, o - first[i]): w for i, a, o, w in triples}
    for differing in set(actual) ^ {tuple(triple) for triple in case["assign"][branch]}:
        assert actual.get(differing, 0.0) == 0.0  # one whose target score is 0 may be absent or present


def slow_assign(scores: Tensor, boxes: Tensor, points: Tensor, objects: FlatTargets, top_k: int, min_side: float) -> set:
    """Return (image, anchor, object) of the one-to-many assignment, object by object and anchor by anchor."""
    triples = set()
    for image in range(len(boxes)):
        present = [n for n in range(len(objects.boxes)) if objects.image_per_object[n] == image]
        metric, overlap = {}, {}
        for n in present:
            x1, y1, x2, y2 = objects.boxes[n].tolist()
            half_w, half_h = max(x2 - x1, min_side) / 2, max(y2 - y1, min_side) / 2
            for a, (x, y) in enumerate(points.tolist()):
                if abs(x - (x1 + x2) / 2) < half_w and abs(y - (y1 + y2) / 2) < half_h:
                    overlap[n, a] = complete_iou(boxes[image, a], objects.boxes[n]).clamp(min=0).item()
                    metric[n, a] = scores[image, objects.labels[n], a].sigmoid().item() ** 0.5 * overlap[n, a] ** 6
        takers_per_anchor: dict[int, list[int]] = {}
        for n in present:
            ranked = sorted((a for m, a in metric if m == n and metric[m, a] > 0), key=lambda a: -metric[n, a])
            for a in ranked[:top_k]:
                takers_per_anchor.setdefault(a, []).append(n)
        for a, takers in takers_per_anchor.items():
            closest = max((n for n in present if (n, a) in overlap), key=lambda n: overlap[n, a])
            triples.add((image, a, takers[0] if len(takers) == 1 else closest))
    return triples


@pytest.mark.parametrize("seed", range(4))
def test_crowded_images_equal_a_slow_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32], like=torch.empty(0))
    pixels = points * strides[:, None]
    corner = torch.rand(14, 2, generator=generator) * 40
    objects = FlatTargets(
        torch.cat((corner, corner + 2 + torch.rand(14, 2, generator=generator) * 24), dim=1),
        torch.randint(3, (14,), generator=generator),
        torch.tensor([0] * 9 + [2] * 5),
    )
    scores = torch.randn(3, 3, len(points), generator=generator)
    boxes = torch.cat((pixels - 8, pixels + 8), dim=1) + torch.randn(3, len(points), 4, generator=generator) * 3
    matches = assign(scores, boxes, pixels, objects, top_k=5, min_side=16.0, one_per_object=False)
    actual = set(zip(matches.image.tolist(), matches.anchor.tolist(), matches.object.tolist()))
    assert actual == slow_assign(scores, boxes, pixels, objects, top_k=5, min_side=16.0)
    assert len(actual) > 14


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_object_from_one_pixel_up_has_a_candidate(branch: str) -> None:
    """Perfect boxes everywhere: each tiny object must get an anchor, wherever it lies."""
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32], like=torch.empty(0))
    pixels = points * strides[:, None]
    for corner in torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 62:
        box = torch.cat((corner, corner + 1))[None]
        objects = FlatTargets(box, torch.tensor([0]), torch.tensor([0]))
        boxes = box.expand(1, len(points), 4)
        matches = assign(torch.zeros(1, 1, len(points)), boxes, pixels, objects, 10, 16.0, branch == "one2one")
        assert len(matches.weight) >= 1
        assert matches.weight.max() == pytest.approx(1.0, rel=1e-4)
