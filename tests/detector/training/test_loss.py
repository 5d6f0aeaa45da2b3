"""The loss against the golden cases, and on inputs that might break it."""

import pytest
import torch
from torch import Tensor

from detector import build_detector
from detector.network.boxes import anchor_points, complete_iou
from detector.network.head import BRANCHES
from detector.training.assigner import FlatTargets, Matches
from detector.training.loss import DetectionLoss, _class_term, one2many_weight_at
from detector.training.setting_checks import as_class_weights
from tests.golden_values import hashed, load

CASES = load("loss")


def golden_inputs(case: dict) -> tuple[dict, list[dict]]:
    """Return the raw outputs, leaves that take gradients, and the targets of a golden case."""
    (height, width), strides, batch = case["size"], case["strides"], len(case["gts"])
    num_anchors = sum(height * width // s**2 for s in strides)
    outputs = {}
    for branch in BRANCHES:
        boxes = 6 * hashed(f"{case['name']}.{branch}.boxes", [batch, 4, num_anchors]) + 1.5
        scores = 6 * hashed(f"{case['name']}.{branch}.scores", [batch, case["nc"], num_anchors]) - 2
        outputs[branch] = {"boxes": boxes.requires_grad_(), "scores": scores.requires_grad_()}
    shapes = [(height // s, width // s) for s in strides]
    outputs["points"], outputs["strides"] = anchor_points(shapes, strides, like=torch.empty(0))
    targets = []
    for rows in case["gts"]:
        rows = torch.tensor(rows).view(-1, 5)
        centers, sides = (rows[:, 1:] * torch.tensor([width, height, width, height])).chunk(2, dim=1)
        targets.append({"boxes": torch.cat((centers - sides / 2, centers + sides / 2), dim=1), "labels": rows[:, 0].long()})
    return outputs, targets


def golden_loss(case: dict, outputs: dict, targets: list[dict]) -> dict[str, Tensor]:
    gains = case["gains"]
    loss = DetectionLoss(gains["box"], gains["cls"], gains["l1"])
    return loss(outputs, targets, tuple(case["size"]), case["weight_one2many"])


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['name']}-{c['nc']}")
def test_total_parts_and_gradients(case: dict) -> None:
    outputs, targets = golden_inputs(case)
    terms = golden_loss(case, outputs, targets)
    batch = len(targets)
    assert (terms["total"] * batch).item() == pytest.approx(case["total"], rel=1e-5)
    for branch in BRANCHES:
        for part, value in case["parts_times_batch"][branch].items():
            assert (terms[f"{branch}/{part}"] * batch).item() == pytest.approx(value, rel=1e-5, abs=1e-7)
    (terms["total"] * batch).backward()
    for branch in BRANCHES:
        golden = case["grad"][branch]
        boxes, scores = outputs[branch]["boxes"].grad, outputs[branch]["scores"].grad.flatten()
        if case["assign"][branch]:
            image, anchor, _ = torch.tensor(case["assign"][branch]).T
            expected = torch.tensor(golden["boxes_at_positives"])
            tolerance = 1e-5 * expected.abs().max().item()
            torch.testing.assert_close(boxes[image, :, anchor], expected, rtol=0, atol=tolerance)
        assert boxes.abs().sum().item() == pytest.approx(golden["boxes_abs_sum"], rel=1e-5, abs=1e-7)
        expected = torch.tensor(golden["scores"]["value"])
        tolerance = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(scores[golden["scores"]["index"]], expected, rtol=0, atol=tolerance)


def test_branch_weight_is_a_function_of_the_epoch() -> None:
    assert [one2many_weight_at(e, 5) for e in range(6)] == pytest.approx([0.8, 0.625, 0.45, 0.275, 0.1, 0.1])
    assert one2many_weight_at(0, 1) == pytest.approx(0.8)
    assert one2many_weight_at(1000, -1) == pytest.approx(0.8)


def random_outputs(dtype: torch.dtype, box_scale: float = 1.0, score_scale: float = 1.0) -> dict:
    torch.manual_seed(0)
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32], like=torch.empty(0, dtype=dtype))
    outputs = {"points": points, "strides": strides}
    for branch in BRANCHES:
        boxes, scores = torch.randn(2, 4, 84) * box_scale, torch.randn(2, 3, 84) * score_scale
        outputs[branch] = {"boxes": boxes.to(dtype).requires_grad_(), "scores": scores.to(dtype).requires_grad_()}
    return outputs


TARGETS = {
    "empty": torch.zeros(0, 4),
    "one_pixel": torch.tensor([[10.0, 10, 11, 11], [63, 63, 64, 64]]),
    "no_area": torch.tensor([[10.0, 10, 10, 11]]),
    "whole_image": torch.tensor([[0.0, 0, 64, 64]]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("box_scale", "score_scale"), [(1.0, 1.0), (1e4, 1e4), (0.0, 0.0)])
@pytest.mark.parametrize("kind", TARGETS)
def test_finite_loss_and_gradients(dtype: torch.dtype, box_scale: float, score_scale: float, kind: str) -> None:
    outputs = random_outputs(dtype, box_scale, score_scale)
    boxes = TARGETS[kind]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    target = {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)}
    with torch.autocast("cpu", torch.bfloat16):
        terms = DetectionLoss()(outputs, [empty, target], (64, 64), 0.8)
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert terms["total"] > 0
    terms["total"].backward()
    for branch in BRANCHES:
        assert outputs[branch]["boxes"].grad.isfinite().all()
        assert outputs[branch]["scores"].grad.isfinite().all()


def test_the_same_offset_in_pixels_costs_the_same_l1_on_every_level() -> None:
    costs = []
    for stride in (8, 16, 32):
        points, strides = anchor_points([(128 // s, 128 // s) for s in (8, 16, 32)], [8, 16, 32], like=torch.empty(0))
        anchor = int(((strides == stride) & (points == 1.5).all(dim=1)).nonzero()[0])
        center = 1.5 * stride
        box = torch.tensor([[center - 20, center - 20, center + 20, center + 20]])
        distances = torch.full((1, 4, len(points)), -1.0)
        distances[0, :, anchor] = (20 + 3) / stride  # 3 pixels too far on each side
        raw = {"boxes": distances, "scores": torch.zeros(1, 1, len(points))}
        outputs = {"one2one": raw, "points": points, "strides": strides}
        target = {"boxes": box, "labels": torch.tensor([0])}
        terms = DetectionLoss(l1_gain=1.0)(outputs, [target], (128, 128), 0.0)
        weight = complete_iou(torch.tensor([[-23.0, -23, 23, 23]]), torch.tensor([[-20.0, -20, 20, 20]])).item()
        costs.append(terms["one2one/l1"].item() / weight)  # the only positive's target score is its overlap
    assert costs == pytest.approx([3 / 128] * 3, rel=1e-4)


@pytest.mark.parametrize("variant", ["yolo26_n", "dyn_n"])
@pytest.mark.parametrize("boxes", [[], [[8.0, 8, 40, 40]]])
def test_every_parameter_gets_a_gradient(variant: str, boxes: list) -> None:
    torch.manual_seed(0)
    detector = build_detector(variant, 3)
    target = {"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.zeros(len(boxes), dtype=torch.int64)}
    outputs = detector(torch.rand(2, 3, 64, 64))
    DetectionLoss()(outputs, [target, target], (64, 64), 0.5)["total"].backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_untrained_scores_are_the_prior() -> None:
    """Untrained scores are those of 5 objects in a 640 px image, spread over classes; boxes stay within twice the image."""
    torch.manual_seed(0)
    outputs = build_detector("yolo26_n", 10).train()(torch.rand(4, 3, 128, 128))
    prior = torch.tensor([5 / 10 / (640 / s) ** 2 for s in (8, 16, 32)])
    scores = outputs["one2one"]["scores"].sigmoid().mean(dim=(0, 1))
    levels = torch.stack([part.mean() for part in scores.split([256, 64, 16])])
    torch.testing.assert_close(levels, prior, rtol=0.5, atol=0)
    sides = outputs["one2one"]["boxes"].abs() * outputs["strides"]
    assert sides.max() < 2 * 128


def test_class_weights_multiply_the_class_term_of_positives() -> None:
    """One object of class 1, matched to the first of two anchors with the target score 0.5.

    All logits give softplus(0) + softplus(0) + softplus(1) + softplus(-1) = 3.0128; the target takes off 0.5 x 1. The
    positive has softplus(1) - 0.5 = 0.8133 of it; with the weight 3, three times as much.
    """
    objects = FlatTargets(torch.zeros(1, 4), labels=torch.tensor([1]), image_per_object=torch.tensor([0]))
    first = torch.tensor([0])
    match = Matches(image=first, anchor=first, object=first, weight=torch.tensor([0.5]))
    raw = {"scores": torch.tensor([[[0.0, 0.0], [1.0, -1.0]]], requires_grad=True), "boxes": torch.zeros(1, 4, 2)}
    terms = {weights: _class_term(raw, match, objects, weights) for weights in (None, (1.0, 1.0), (5.0, 1.0), (1.0, 3.0))}
    assert [term.item() for term in terms.values()] == pytest.approx([2.5128, 2.5128, 2.5128, 4.1393], abs=1e-4)
    (gradient,) = torch.autograd.grad(terms[1.0, 3.0], raw["scores"])
    sigmoid = torch.tensor([[[0.5, 0.5], [3 * (torch.tensor(1.0).sigmoid() - 0.5), torch.tensor(-1.0).sigmoid()]]])
    torch.testing.assert_close(gradient, sigmoid)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"gren": 2}, "unknown class in class_weights: 'gren'; did you mean green"),
        ([1.0], r"class_weights is \[1\.0\]; expected {name: weight}, or a list with one weight for each of the 2 classes"),
        ({"green": 0}, "the weight of 'green' in class_weights is 0; expected a number above 0"),
        ({"green": -1}, "the weight of 'green' in class_weights is -1; expected a number above 0"),
        ({"green": float("inf")}, "the weight of 'green' in class_weights is inf; expected a number above 0"),
        ([1.0, float("nan")], "the weight of 'green' in class_weights is nan"),
        ({"green": "much"}, "the weight of 'green' in class_weights is 'much'"),
    ],
)
def test_wrong_class_weights_are_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_class_weights(value, ["red", "green"])
    assert as_class_weights({"green": 2}, ["red", "green"]) == as_class_weights([1, 2], ["red", "green"]) == (1.0, 2.0)
