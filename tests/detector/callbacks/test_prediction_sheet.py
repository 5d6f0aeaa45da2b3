"""The sheet of validation images: which images are on it, and where boxes are drawn."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import lightning as L
import numpy as np
import pytest
import torch

from detector.batch import Tile
from detector.callbacks import prediction_sheet
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.prediction_sheet import PredictionSheet, compare
from detector.imaging.letterbox import fit_letterbox, to_canvas
from tests.detector.callbacks.test_coco_evaluation import quiet_trainer
from tests.detector.callbacks.test_epoch_log import BOX, TRUTH, run
from tests.detector.fakes import CANVAS, CLASS_NAMES, IMAGE, RoteData, RoteDetector

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


def test_a_wrong_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match="num_images of the sheet is -1; expected a whole number, 0 or more"):
        PredictionSheet(num_images=-1)


@pytest.mark.parametrize("image", [torch.zeros(3, 64, 96, dtype=torch.uint8), torch.zeros(3, 64, 96).bfloat16()])
def test_uint8_and_float_images_are_drawn_alike(image: torch.Tensor) -> None:
    truth = {"boxes": torch.tensor([[10.0, 10.0, 40.0, 40.0]]), "labels": torch.tensor([2]), "image_id": 7}
    drawn = compare(image, truth, NO_DETECTIONS, CLASS_NAMES, size=192)
    blank = compare(image, NO_OBJECTS, NO_DETECTIONS, CLASS_NAMES, size=192)
    left, right = np.abs(drawn.astype(int) - blank)[-132:].reshape(132, 2, -1).sum(axis=(0, 2))
    assert left > 0
    assert right == 0  # the half of the detections; the captions are above


def test_a_caption_names_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = Mock(wraps=prediction_sheet.sheet)
    monkeypatch.setattr(prediction_sheet, "sheet", sheet)
    for tile in (Tile(36, 0, 64, 64, 64, 100), Tile(0, 0, 100, 64, 64, 100)):
        compare(torch.zeros(3, *CANVAS), {**NO_OBJECTS, "image_id": 7, "tile": tile}, NO_DETECTIONS, CLASS_NAMES)
    captions = [call.args[1][0][0] for call in sheet.call_args_list]
    assert captions == ["image 7, tile at x 36, y 0: 0 objects", "image 7: 0 objects"]


def test_boxes_are_drawn_at_their_coordinates() -> None:
    box = torch.from_numpy(to_canvas(np.array([BOX]), fit_letterbox(IMAGE, CANVAS)))
    target = {"boxes": box, "labels": torch.tensor([1])}
    drawn = compare(torch.zeros(3, *CANVAS), target, NO_DETECTIONS, CLASS_NAMES, size=640)[-644:-4, 4:644]
    ys, xs = np.nonzero(drawn[200:].max(axis=2) > 60)  # 200: below the label
    assert [xs.min(), xs.max(), ys.max() + 200] == pytest.approx([*(box[0, [0, 2, 3]] * 10).tolist()], abs=3)


SMALL: dict[int, Any] = {1: [(BOX, 0.0124, 1), (BOX, 0.012, 0)], 2: [(BOX, 0.0119, 0)]}  # image 1 has one object, a dog


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The titles of sheets, and the threshold that each image before it was drawn with."""
    calls: list[Any] = []
    compare_, draw_title = prediction_sheet.compare, prediction_sheet.draw_title

    def compare_and_keep(*arguments: Any, **settings: Any) -> np.ndarray:
        calls.append(settings["score_threshold"])
        return compare_(*arguments, **settings)

    monkeypatch.setattr(prediction_sheet, "compare", compare_and_keep)
    monkeypatch.setattr(prediction_sheet, "draw_title", lambda page, title: calls.append(title) or draw_title(page, title))
    return calls


def validate(root: Path, answers: dict[int, Any], *callbacks: L.Callback, test: bool = False) -> RoteDetector:
    trainer = quiet_trainer(root, *callbacks)
    module, data = RoteDetector(answers), RoteData([1, 2], {"val": TRUTH, "test": TRUTH})
    (trainer.test if test else trainer.validate)(module, data, verbose=False)
    return module


@pytest.mark.filterwarnings("ignore:the COCO metrics are of 2 of 5 images")
def test_detections_are_drawn_at_the_threshold_of_the_best_f1(tmp_path: Path, drawn: list[Any]) -> None:
    title = "one2one: scores above 0.0123, where F1 is best (1.000 on all images, at IoU 0.5)"
    for callbacks in ((CocoEvaluation(), PredictionSheet()), (PredictionSheet(), CocoEvaluation())):
        for test, name in ((False, "val_predictions.jpg"), (True, "test_predictions.jpg")):
            validate(tmp_path, SMALL, *callbacks, test=test)
            assert drawn[:2] == [0.0123, 0.0123]
            assert drawn[2].startswith(title)
            assert (tmp_path / name).is_file()
            drawn.clear()


@pytest.mark.filterwarnings("ignore:the COCO metrics are of 2 of 5 images")
@pytest.mark.parametrize(
    ("answers", "callbacks", "threshold", "title"),
    [
        (SMALL, (CocoEvaluation(), PredictionSheet(score_threshold=0.4)), 0.4, "one2one: scores above 0.4, as set"),
        (SMALL, (CocoEvaluation("one2many"), PredictionSheet()), 0.0123, "one2many: scores above 0.0123, where F1 is best"),
        (SMALL, (CocoEvaluation(), PredictionSheet(branch="one2many")), 0.0123, "one2many: scores above 0.0123, where F1"),
        (
            SMALL,
            (CocoEvaluation("one2many"), PredictionSheet(branch="one2one")),
            0.25,
            ".* because this branch has no COCO",
        ),
        (SMALL, (PredictionSheet(),), 0.25, "one2one: scores above 0.25, because this branch has no COCO"),
        ({2: [(BOX, 0.9, 1)]}, (CocoEvaluation(), PredictionSheet()), 0.25, ".* because no detection is right"),
    ],
)
def test_the_title_says_where_the_threshold_comes_from(
    tmp_path: Path, drawn: list[Any], answers: dict, callbacks: tuple, threshold: float, title: str
) -> None:
    validate(tmp_path, answers, *callbacks)
    assert drawn[:2] == [threshold] * 2
    assert re.match(title, drawn[2])


def test_scores_below_the_evaluated_ones_are_drawn_if_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {}
    decode = prediction_sheet.decode
    monkeypatch.setattr(prediction_sheet, "decode", lambda *a, **s: settings.update(s) or decode(*a, **s))
    low = CocoEvaluation(score_threshold=0.01, max_detections=7, iou_threshold=0.6)
    run(tmp_path, low, PredictionSheet(score_threshold=0.001, branch="one2many"), max_epochs=1)
    assert settings == {"score_threshold": 0.001, "max_detections": 7, "iou_threshold": 0.6}
    settings.clear()
    run(tmp_path, low, PredictionSheet(score_threshold=0.4), max_epochs=1)
    assert settings["score_threshold"] == 0.01  # so that the best below is there, too


def test_detections_below_the_threshold_are_faint_and_only_where_none_is_above() -> None:
    boxes = torch.tensor([[10.0, 10.0, 40.0, 40.0], [50.0, 10.0, 90.0, 60.0]])
    detections: Any = {"boxes": boxes, "scores": torch.tensor([0.0124, 0.01]), "labels": torch.tensor([1, 2])}
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    blank = compare(image, NO_OBJECTS, NO_DETECTIONS, CLASS_NAMES, size=192)
    light = []
    for threshold in (0.009, 0.011, 0.25):
        drawn = compare(image, NO_OBJECTS, detections, CLASS_NAMES, size=192, score_threshold=threshold)
        right = np.where(blank == drawn, 0, drawn)[-132:, -196:].max(axis=2)
        light.append([int(right[:, half].max()) for half in (slice(0, 90), slice(105, 196))])  # of each box
    assert light[0] == [255, 255] or min(light[0]) > 120
    assert light[1] == [light[0][0], 0]
    assert 0 < light[2][0] <= light[0][0] * 0.6
    assert light[2][1] == 0


@pytest.mark.parametrize("threshold", [1.5, -0.1, float("nan"), "auto", None])
def test_a_threshold_that_is_none_is_refused(threshold: Any) -> None:
    with pytest.raises(ValueError, match=r"score_threshold of the sheet is .*; expected a number in 0\.\.1, or best"):
        PredictionSheet(score_threshold=threshold)
