"""Merging views: each object once, overlapping objects of one view stay, cut boxes give way to whole ones."""

import torch

from detector.batch import Tile
from detector.network.decode import DetectionDict
from detector.network.merge import View, merge_flipped, merge_views, tile_view

EVERYWHERE = (0.0, 0.0, 1000.0, 1000.0)


def view(
    boxes: list[list[float]],
    scores: list[float],
    labels: list[int] | None = None,
    region: tuple[float, ...] = EVERYWHERE,
    cut: list[bool] | None = None,
) -> View:
    label_tensor = torch.tensor(labels or [0] * len(boxes), dtype=torch.int64)
    cuts = torch.tensor(cut or [False] * len(boxes))
    return View(torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(scores), label_tensor, region, cuts)


def as_dict(one: View) -> DetectionDict:
    return {"boxes": one.boxes, "scores": one.scores, "labels": one.labels}


def test_mirrored_boxes_come_back_and_objects_are_there_once() -> None:
    seen = view([[10, 20, 30, 40], [50, 0, 60, 10]], [0.6, 0.5], [1, 0])
    mirrored = view([[71, 20, 91, 40], [71, 20, 90, 40], [2, 50, 8, 60]], [0.8, 0.7, 0.2], [1, 0, 1])
    merged = merge_flipped(as_dict(seen), as_dict(mirrored), width=100)
    # 71..91 of 100 is 9..29; the box of class 0 in its place is another object
    assert merged["boxes"].tolist() == [[9, 20, 29, 40], [10, 20, 29, 40], [50, 0, 60, 10], [92, 50, 98, 60]]
    assert merged["labels"].tolist() == [1, 0, 0, 1]
    torch.testing.assert_close(merged["scores"], torch.tensor([0.8, 0.7, 0.5, 0.2]))
    assert len(merge_flipped(as_dict(seen), as_dict(mirrored), 100, max_detections=2)["scores"]) == 2
    nothing = as_dict(view([], []))
    assert len(merge_flipped(nothing, nothing, width=100)["boxes"]) == 0


def test_overlapping_objects_of_one_view_stay() -> None:
    """NMS over all boxes would drop the second one: its IoU with the first is 0.67. The NMS-free branch found both."""
    crowd = [[0.0, 0, 100, 100], [20.0, 0, 120, 100]]
    boxes, scores, _ = merge_views([view(crowd, [0.9, 0.8]), view(crowd, [0.7, 0.95])])
    assert sorted(boxes.tolist()) == crowd
    torch.testing.assert_close(scores, torch.tensor([0.95, 0.9]))


def test_a_cut_box_gives_way_to_the_whole_one() -> None:
    left, right = (0.0, 0.0, 100.0, 100.0), (80.0, 0.0, 180.0, 100.0)
    cut_off = view([[85, 39, 100, 61], [90, 70, 98, 80]], [0.9, 0.5], region=left, cut=[True, False])
    whole = view([[85, 40, 165, 60], [80, 0, 180, 100]], [0.6, 0.001], region=right, cut=[False, True])
    boxes, scores, _ = merge_views([cut_off, whole])
    # The part has an IoU of 0.18 with the whole one, whose box stays as it is.
    # The box of 100 x 100 covers it, too, and is another object.
    assert boxes.tolist() == [[85, 40, 165, 60], [90, 70, 98, 80], [80, 0, 180, 100]]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5, 0.001]))


def test_two_halves_become_one_box() -> None:
    halves = [
        view([[10, 40, 100, 60]], [0.5], region=(0, 0, 100, 100), cut=[True]),
        view([[80, 41, 170, 60]], [0.8], region=(80, 0, 180, 100), cut=[True]),
        view([[80, 41, 170, 60]], [0.7], [3], region=(80, 0, 180, 100), cut=[True]),
    ]
    boxes, scores, labels = merge_views(halves)
    assert boxes.tolist() == [[10, 40, 170, 60], [80, 41, 170, 60]]
    assert labels.tolist() == [0, 3]
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.7]))


def test_an_object_longer_than_two_tiles_becomes_one_box() -> None:
    """Its first and its last part lie in tiles that do not overlap; the middle part connects them. Its neighbor stays."""
    parts = [
        view([[10, 40, 100, 60]], [0.9], region=(0, 0, 100, 100), cut=[True]),
        view([[80, 41, 180, 60], [150, 70, 180, 90]], [0.5, 0.4], region=(80, 0, 180, 100), cut=[True, True]),
        view([[160, 40, 230, 60]], [0.6], region=(160, 0, 260, 100), cut=[True]),
    ]
    boxes, scores, _ = merge_views(parts)
    assert boxes.tolist() == [[10, 40, 230, 60], [150, 70, 180, 90]]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.4]))


def test_tiles_become_views_of_the_image() -> None:
    boxes, scores, labels = (
        torch.tensor([[0.0, 10, 20, 30], [30, 30, 63.5, 40], [20, 20, 40, 64]]),
        torch.ones(3),
        torch.zeros(3),
    )
    first = tile_view(boxes, scores, labels, Tile(0, 0, 64, 64, 64, 100))
    assert first.cut.tolist() == [False, True, False]  # the right edge is an inner one, the others are the image's
    last = tile_view(boxes, scores, labels, Tile(36, 0, 64, 64, 64, 100))
    assert last.cut.tolist() == [True, False, False]
    assert last.boxes[0].tolist() == [36, 10, 56, 30]
    assert last.region == (36, 0, 100, 64)
    whole = tile_view(boxes, scores, labels, Tile(0, 0, 100, 64, 64, 100, 33.0))
    assert whole.boxes.tolist() == boxes[1:].tolist()  # only what is longer than the overlap
    assert not whole.cut.any()
