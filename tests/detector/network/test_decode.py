"""Decoding against slow loops, and its edge cases."""

import pytest
import torch
from torchvision.ops import box_iou

import detector.network.decode as decoding
from detector.network.decode import decode
from detector.network.head import BRANCHES


def raw(boxes: torch.Tensor, scores: torch.Tensor) -> dict:
    """Return raw outputs of both branches: ``boxes`` (B, A, 4) in pixels, ``scores`` (B, A, C) in 0..1."""
    num_anchors = boxes.shape[1]
    points = torch.zeros(num_anchors, 2)
    distances = torch.cat((-boxes[..., :2], boxes[..., 2:]), dim=2) / 8
    branch = {"boxes": distances.transpose(1, 2), "scores": scores.logit().transpose(1, 2)}
    return {"one2one": branch, "one2many": branch, "points": points, "strides": torch.full((num_anchors,), 8.0)}


def random_case(num_anchors: int = 60, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    top_left = torch.rand(2, num_anchors, 2) * 40
    boxes = torch.cat((top_left, top_left + 5 + torch.rand(2, num_anchors, 2) * 20), dim=2)
    return boxes, torch.rand(2, num_anchors, num_classes)


def test_one_to_one_takes_the_best_pairs_of_the_best_anchors() -> None:
    boxes, scores = random_case()
    for image, detections in enumerate(decode(raw(boxes, scores), "one2one", 0.0, max_detections=10)):
        anchors = sorted(range(60), key=lambda a: -scores[image, a].max())[:10]
        pairs = sorted(((a, c) for a in anchors for c in range(3)), key=lambda pair: -scores[image][pair])[:10]
        assert detections["labels"].tolist() == [c for _, c in pairs]
        torch.testing.assert_close(detections["boxes"], torch.stack([boxes[image, a] for a, _ in pairs]))
        torch.testing.assert_close(detections["scores"], torch.stack([scores[image, a, c] for a, c in pairs]))


def slow_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, iou: float) -> list[tuple[int, int]]:
    """Return the (anchor, class) pairs that NMS keeps, best first."""
    kept: list[tuple[int, int]] = []
    pairs = [(a, c) for a in range(len(boxes)) for c in range(scores.shape[1]) if scores[a, c] > threshold]
    for a, c in sorted(pairs, key=lambda pair: -scores[pair]):
        if all(c != other or box_iou(boxes[[a]], boxes[[b]]) <= iou for b, other in kept):
            kept.append((a, c))
    return kept


def test_one_to_many_equals_a_slow_class_aware_nms() -> None:
    boxes, scores = random_case()
    for image, detections in enumerate(decode(raw(boxes, scores), "one2many", 0.3, max_detections=300, iou_threshold=0.5)):
        expected = slow_nms(boxes[image], scores[image], 0.3, 0.5)
        assert detections["labels"].tolist() == [c for _, c in expected]
        torch.testing.assert_close(detections["boxes"], torch.stack([boxes[image, a] for a, _ in expected]))


def test_the_cap_on_candidates_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = raw(*random_case())
    everything = decode(outputs, "one2many", 0.0, max_detections=5)
    monkeypatch.setattr(decoding, "MAX_CANDIDATES", 30)
    for capped, full in zip(decode(outputs, "one2many", 0.0, max_detections=5), everything):
        torch.testing.assert_close(capped["scores"], full["scores"])


@pytest.mark.parametrize("branch", BRANCHES)
def test_classes_are_chosen_before_anything_is_ranked(branch: str) -> None:
    boxes, scores = random_case()
    scores[:, :, 1] *= 0.1  # class 1 would never be among the best
    for image, detections in enumerate(decode(raw(boxes, scores), branch, 0.0, max_detections=1, classes=[1])):
        assert detections["labels"].tolist() == [1]
        torch.testing.assert_close(detections["scores"][0], scores[image, :, 1].max())


@pytest.mark.parametrize("branch", BRANCHES)
def test_without_detections_the_shapes_and_types_stay(branch: str) -> None:
    boxes, scores = random_case()
    for detections in decode(raw(boxes, scores * 1e-4), branch, score_threshold=0.5):
        assert detections["boxes"].shape == (0, 4)
        assert detections["labels"].dtype == torch.int64


@pytest.mark.parametrize("branch", BRANCHES)
def test_half_precision_outputs_are_decoded_in_float32(branch: str) -> None:
    outputs = raw(*random_case())
    halved = {
        key: {kind: value.bfloat16() for kind, value in part.items()} if isinstance(part, dict) else part.bfloat16()
        for key, part in outputs.items()
    }
    (detections, _) = decode(halved, branch, 0.0)
    assert detections["boxes"].dtype == detections["scores"].dtype == torch.float32


def test_a_missing_branch_is_named_in_the_error() -> None:
    outputs = raw(*random_case())
    del outputs["one2many"]
    with pytest.raises(ValueError, match="branch 'one2many' is not in the outputs, which have: one2one"):
        decode(outputs, "one2many")
