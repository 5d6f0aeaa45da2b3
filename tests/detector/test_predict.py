"""Predictor: pictures in any form give the same answer, in their own pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector import build_detector
from detector.letterbox import letterbox, to_original
from detector.predict import Predictor
from detector.weights import WeightsInfo


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    info = WeightsInfo("yolo26_n", class_names=["cat", "dog"], category_ids=[7, 9], image_size=(64, 96))
    return Predictor(build_detector("yolo26_n", 2).eval(), info)


def test_every_form_of_a_picture_gives_the_same(predictor: Predictor, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), image, tensor, tensor / 255]
    answers = predictor(forms, score_threshold=0.0, max_detections=5)
    canvas, place = letterbox(image, (64, 96))
    batch = torch.from_numpy(canvas).permute(2, 0, 1)[None] / 255
    (expected,) = predictor.model.detect(batch, score_threshold=0.0, max_detections=5)
    for found in answers:
        assert len(found) == 5
        assert torch.equal(found.boxes, to_original(expected["boxes"], place))
        assert torch.equal(found.scores, expected["scores"])
        assert found.names == [["cat", "dog"][label] for label in found.labels.tolist()]
        assert found.category_ids == [[7, 9][label] for label in found.labels.tolist()]
    (alone,) = predictor(image, score_threshold=1.0)
    assert (len(alone), alone.boxes.shape, alone.names) == (0, (0, 4), [])


def test_what_is_not_a_picture_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no picture")
    for image, message in (
        (tmp_path / "a.txt", r"a\.txt: not a picture"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), "float64"),
        (torch.zeros(1, 3, 4, 4), r"\(1, 3, 4, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor(image)


def test_branches() -> None:
    model = build_detector("yolo26_n", 2)
    assert Predictor(model.deploy("one2many"), WeightsInfo("yolo26_n"), "one2many").category_ids == [0, 1]
    for detector, branch in ((model, "one2two"), (model.deploy("one2many"), "one2one")):
        with pytest.raises(ValueError, match=f"no branch '{branch}'"):
            Predictor(detector, WeightsInfo("yolo26_n"), branch)


def test_classes_without_names_get_numbers() -> None:
    predictor = Predictor(build_detector("yolo26_n", 2), WeightsInfo("yolo26_n"))
    assert (predictor.class_names, predictor.category_ids) == (["class 0", "class 1"], [0, 1])
    assert predictor.image_size == (640, 640)


def test_a_detector_fresh_from_training_predicts_and_stays_as_it_is() -> None:
    model = build_detector("yolo26_n", 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Predictor(model, WeightsInfo("yolo26_n", image_size=(64, 64)))(torch.rand(3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
