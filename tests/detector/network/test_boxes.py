"""Complete IoU against the golden pairs; distances and anchor points against values worked out by hand."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from detector.network.boxes import anchor_points, boxes_to_distances, complete_iou, distances_to_boxes
from tests.golden_values import load


def test_complete_iou_equals_the_golden_pairs() -> None:
    golden = load("misc")["ciou"]
    a, b = torch.tensor(golden["a"]), torch.tensor(golden["b"])
    ciou = complete_iou(a, b)
    torch.testing.assert_close(ciou, torch.tensor(golden["ciou"]), rtol=0, atol=1e-6)
    assert (ciou <= torch.tensor(golden["iou"]) + 1e-6).all()  # the penalties are never negative


def test_aspect_weight_is_a_constant_to_the_gradient() -> None:
    """The gradient equals the finite difference of the formula with a constant weight."""
    a = torch.tensor([1.0, 0.0, 5.0, 2.5], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.0, 0.5, 2.0, 4.0], dtype=torch.float64)

    def parts(box: Tensor) -> tuple[Tensor, Tensor]:
        """Return the IoU less the distance penalty, and the aspect penalty without its weight."""
        hull = torch.maximum(box[2:], b[2:]) - torch.minimum(box[:2], b[:2])
        offset = (b[:2] + b[2:] - box[:2] - box[2:]) / 2
        (w, h), (wb, hb) = box[2:] - box[:2], b[2:] - b[:2]
        aspect = 4 / torch.pi**2 * ((wb / hb).atan() - (w / h).atan()) ** 2
        return box_iou(box[None], b[None]).squeeze() - offset.square().sum() / hull.square().sum(), aspect

    with torch.no_grad():
        aspect = parts(a)[1]
        weight = aspect / (aspect - box_iou(a[None], b[None]).squeeze() + 1)
        steps = 1e-6 * torch.eye(4, dtype=torch.float64)
        values = [[rest - weight * v for rest, v in (parts(a + step), parts(a - step))] for step in steps]
        expected = torch.stack([(up - down) / 2e-6 for up, down in values])
    (gradient,) = torch.autograd.grad(complete_iou(a, b), a)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_anchor_points_run_row_by_row_finest_level_first() -> None:
    points, strides = anchor_points([(2, 3), (1, 1)], [8, 16], like=torch.empty(0))
    assert points.tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5], [0.5, 0.5]]
    assert strides.tolist() == [8.0] * 6 + [16.0]


def test_anchor_points_are_exact_below_float32_too() -> None:
    points, _ = anchor_points([(2, 300)], [4], like=torch.empty(0, dtype=torch.bfloat16))
    assert points.dtype == torch.float32
    assert len(points.unique(dim=0)) == 600


def test_distances_and_boxes_are_inverse() -> None:
    boxes, points = torch.rand(5, 4) * 9, torch.rand(5, 2) * 9
    torch.testing.assert_close(distances_to_boxes(boxes_to_distances(boxes, points), points), boxes)
    assert distances_to_boxes(torch.tensor([1.0, 2, 3, 4]), torch.tensor([10.0, 10])).tolist() == [9, 8, 13, 14]
