import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.imaging.letterbox import GRAY, fit_letterbox, letterbox, to_canvas, to_original

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "misc.json").read_text())["letterbox"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['hw'][0]}x{c['hw'][1]}-up{c['scaleup']:d}")
def test_sizes_and_pads_equal_the_reference(case: dict) -> None:
    size = (case["size"], case["size"])
    placement = fit_letterbox(tuple(case["hw"]), size, scale_up=case["scaleup"])
    assert [placement.width, placement.height] == case["resized_wh"]
    assert (placement.top, size[0] - placement.height - placement.top) == (case["top"], case["bottom"])
    assert (placement.left, size[1] - placement.width - placement.left) == (case["left"], case["right"])


@pytest.mark.parametrize("original", [(1, 1), (1, 300), (427, 641), (333, 501), (1081, 1921), (53, 61), (2161, 35)])
@pytest.mark.parametrize("size", [(640, 640), (320, 608), (64, 64)])
@pytest.mark.parametrize("scale_up", [True, False])
def test_boxes_come_back(original: tuple[int, int], size: tuple[int, int], scale_up: bool) -> None:
    height, width = original
    corners = np.random.default_rng(0).uniform(0, 1, (50, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    boxes[0] = (0, 0, width, height)
    placement = fit_letterbox(original, size, scale_up)
    back = to_original(torch.from_numpy(to_canvas(boxes, placement)), placement)
    assert np.abs(back.numpy() - boxes).max() < 1e-3


def test_a_painted_rectangle_lies_in_its_box() -> None:
    image = np.zeros((100, 167, 3), dtype=np.uint8)  # enlarged: reducing without a low-pass would round its edges
    image[20:60, 33:133] = 255
    canvas, placement = letterbox(image, (160, 224))
    assert canvas.shape == (160, 224, 3)
    assert (canvas[: placement.top] == GRAY).all()
    assert (canvas[placement.top + placement.height :] == GRAY).all()
    pixels = canvas[placement.top : placement.top + placement.height].astype(np.float64).mean(axis=2)
    ys, xs = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5  # pixel centers
    center = np.array([(xs * pixels).sum(), (ys * pixels).sum()]) / pixels.sum() + (placement.left, placement.top)
    box = to_canvas(np.array([[33.0, 20.0, 133.0, 60.0]]), placement)[0]
    assert np.abs(center - (box[:2] + box[2:]) / 2).max() < 0.1


def test_boxes_are_clipped_to_the_image_and_may_be_none() -> None:
    placement = fit_letterbox((100, 200), (64, 64))
    back = to_original(torch.tensor([[-50.0, -50.0, 90.0, 90.0]]), placement)
    assert back.tolist() == [[0.0, 0.0, 200.0, 100.0]]
    assert to_original(torch.zeros(0, 4), placement).shape == (0, 4)
    assert to_canvas(np.zeros((0, 4), dtype=np.float32), placement).shape == (0, 4)
