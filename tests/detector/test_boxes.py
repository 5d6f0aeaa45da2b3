"""Overlaps against the golden pairs, distances and anchor points by hand."""

import torch

from detector.boxes import anchor_points, boxes_to_distances, complete_iou, distances_to_boxes, paired_iou
from tests.golden_values import load


def test_overlaps_equal_the_golden_pairs() -> None:
    golden = load("misc")["ciou"]
    a, b = torch.tensor(golden["a"]), torch.tensor(golden["b"])
    torch.testing.assert_close(paired_iou(a, b), torch.tensor(golden["iou"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(complete_iou(a, b), torch.tensor(golden["ciou"]), rtol=0, atol=1e-6)


def test_aspect_weight_is_a_constant_to_the_gradient() -> None:
    """With equal centres, only IoU and aspect terms remain; the derivative of their product would show."""
    a = torch.tensor([0.0, 0.0, 4.0, 2.0], requires_grad=True)
    b = torch.tensor([0.0, 0.0, 2.0, 4.0])
    (gradient,) = torch.autograd.grad(complete_iou(a, b), a)
    eps = 1e-3
    shifted = torch.tensor([0.0, 0.0, 4.0 + eps, 2.0])
    naive = (complete_iou(shifted, b) - complete_iou(a.detach(), b)) / eps
    assert abs(naive - gradient[2]) > 1e-3


def test_anchor_points_run_row_by_row_finest_level_first() -> None:
    points, strides = anchor_points([(2, 3), (1, 1)], [8, 16], like=torch.empty(0))
    assert points.tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5], [0.5, 0.5]]
    assert strides.tolist() == [8.0] * 6 + [16.0]


def test_distances_and_boxes_are_inverse() -> None:
    boxes, points = torch.rand(5, 4) * 9, torch.rand(5, 2) * 9
    torch.testing.assert_close(distances_to_boxes(boxes_to_distances(boxes, points), points), boxes)
    assert distances_to_boxes(torch.tensor([1.0, 2, 3, 4]), torch.tensor([10.0, 10])).tolist() == [9, 8, 13, 14]
