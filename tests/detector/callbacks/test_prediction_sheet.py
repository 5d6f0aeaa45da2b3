"""The sheet of validation images: which images are on it, and where boxes are drawn."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detector.callbacks.prediction_sheet import PredictionSheet, compare
from detector.imaging.letterbox import fit_letterbox, to_canvas
from tests.detector.callbacks.test_epoch_log import BOX, run
from tests.detector.fakes import CANVAS, CLASS_NAMES, IMAGE

NO_OBJECTS: dict[str, Any] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
NO_DETECTIONS: dict[str, Any] = {**NO_OBJECTS, "scores": torch.zeros(0)}


def test_the_sheet_holds_the_first_images(tmp_path: Path) -> None:
    run(tmp_path, PredictionSheet(num_images=3), max_epochs=1)
    page = cv2.imread(str(tmp_path / "val_predictions.jpg"))
    pair = compare(torch.zeros(3, *CANVAS), NO_OBJECTS, NO_DETECTIONS, CLASS_NAMES).shape
    assert 2 * pair[0] < page.shape[0] < 2 * pair[0] + 60  # two rows: two images, then one
    assert 2 * pair[1] < page.shape[1] < 2 * pair[1] + 60


def test_the_sanity_check_draws_nothing(tmp_path: Path) -> None:
    run(tmp_path, PredictionSheet(), max_epochs=0, num_sanity_val_steps=2)
    run(tmp_path, PredictionSheet(num_images=0), max_epochs=1)
    assert not (tmp_path / "val_predictions.jpg").exists()


@pytest.mark.parametrize("image", [torch.zeros(3, 64, 96, dtype=torch.uint8), torch.zeros(3, 64, 96).bfloat16()])
def test_uint8_and_float_images_are_drawn_alike(image: torch.Tensor) -> None:
    truth = {"boxes": torch.tensor([[10.0, 10.0, 40.0, 40.0]]), "labels": torch.tensor([2]), "image_id": 7}
    drawn = compare(image, truth, NO_DETECTIONS, CLASS_NAMES, size=192)
    blank = compare(image, NO_OBJECTS, NO_DETECTIONS, CLASS_NAMES, size=192)
    left, right = np.abs(drawn.astype(int) - blank)[-132:].reshape(132, 2, -1).sum(axis=(0, 2))
    assert left > 0
    assert right == 0  # the half of the detections; the captions are above


def test_boxes_are_drawn_at_their_coordinates() -> None:
    box = torch.from_numpy(to_canvas(np.array([BOX]), fit_letterbox(IMAGE, CANVAS)))
    target = {"boxes": box, "labels": torch.tensor([1])}
    drawn = compare(torch.zeros(3, *CANVAS), target, NO_DETECTIONS, CLASS_NAMES, size=640)[-644:-4, 4:644]
    ys, xs = np.nonzero(drawn[200:].max(axis=2) > 60)  # 200: below the label
    assert [xs.min(), xs.max(), ys.max() + 200] == pytest.approx([*(box[0, [0, 2, 3]] * 10).tolist()], abs=3)
