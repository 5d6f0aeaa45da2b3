"""Files of a prediction have the detections of each frame: box, score, category, name, pixels."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detector.imaging.read import read_upright
from detector.predict import Detections, Predictor, outputs
from detector.predict.outputs import PredictionFiles
from detector.predict.sources import find_sources
from tests.detector.predict.crafted import crafted_predictor
from tests.detector.predict.test_sources import write_video

BOXES = [[10.5, 20.25, 40.5, 30.75], [100.0, 3.0, 120.0, 60.5]]  # x1 y1 x2 y2
FOUND = Detections(torch.tensor(BOXES), torch.tensor([0.75, 0.5]), torch.tensor([2, 0]), ["bird", "cat"], [90, 7])
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), [], [])


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return crafted_predictor(source="best.ckpt")


@pytest.fixture
def image(tmp_path: Path) -> np.ndarray:
    """An image 81 x 120 (height x width) whose red is the column and whose green is the row of each pixel; as a.png."""
    ys, xs = np.mgrid[:81, :120]
    pixels = np.stack([xs, ys, np.full_like(xs, 200)], axis=-1).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    return pixels


def write(predictor: Predictor, tmp_path: Path, detections: list[Detections], *sources: str, **settings: Any) -> Path:
    """Write the detections of all frames of the sources; return the folder."""
    out = tmp_path / "out"
    with PredictionFiles(out, predictor, **{"annotated": False} | settings) as files:
        frames = find_sources([str(tmp_path / source) for source in sources]).frames()
        for frame, found in zip(frames, detections, strict=True):
            files.add(frame, found)
    return out


def test_json_and_table_have_every_field(predictor: Predictor, tmp_path: Path, image: np.ndarray) -> None:
    out = write(predictor, tmp_path, [FOUND], "a.png", table=True)
    content = json.loads((out / "predictions.json").read_text())
    (entry,) = content["images"]
    assert entry | {"id": 1, "height": 81, "width": 120, "file_name": str(tmp_path / "a.png")} == entry
    expected = [
        {"id": 1, "image_id": 1, "category_id": 90, "bbox": [10.5, 20.25, 30.0, 10.5], "area": 315.0, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [100.0, 3.0, 20.0, 57.5], "area": 1150.0, "iscrowd": 0},
    ]
    assert content["annotations"] == [row | {"score": score} for row, score in zip(expected, (0.75, 0.5), strict=True)]
    assert content["categories"] == [{"id": 7, "name": "cat"}, {"id": 22, "name": "dog"}, {"id": 90, "name": "bird"}]
    assert content["info"]["description"] == "detections of best.ckpt"
    rows = list(csv.reader((out / "predictions.csv").open()))
    head = ["file", "frame", "x1", "y1", "x2", "y2", "score", "category_id", "name"]
    numbers = (
        ["10.5", "20.25", "40.5", "30.75", "0.75", "90", "bird"],
        ["100.0", "3.0", "120.0", "60.5", "0.5", "7", "cat"],
    )
    assert [[row[head.index(name)] for name in head[2:]] for row in rows[1:]] == list(numbers)
    assert [row[:2] for row in rows[1:]] == [[str(tmp_path / "a.png"), ""]] * 2


def test_crops_are_the_pixels_of_the_boxes(predictor: Predictor, tmp_path: Path, image: np.ndarray) -> None:
    """Whole pixels: all that a box touches."""
    out = write(predictor, tmp_path, [FOUND], "a.png", crops=True)
    np.testing.assert_array_equal(read_upright(out / "crops/bird/a_0.png"), image[20:31, 10:41])
    np.testing.assert_array_equal(read_upright(out / "crops/cat/a_1.png"), image[3:61, 100:120])


def test_annotated_images_show_boxes_names_and_scores(
    predictor: Predictor, tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(outputs, "draw_boxes", lambda pixels, *rest: drawn.append(rest) or pixels)
    out = write(predictor, tmp_path, [FOUND], "a.png", annotated=True, scale_side=64)
    ((boxes, labels, names, scores, scale_side),) = drawn
    assert (boxes.tolist(), labels.tolist(), scores.tolist()) == (BOXES, [2, 0], [0.75, 0.5])
    assert (names, scale_side) == (["cat", "dog", "bird"], 64)
    np.testing.assert_array_equal(read_upright(out / "pictures/a.png"), image)


def test_every_video_has_its_own_frames_colors_and_rate(predictor: Predictor, tmp_path: Path) -> None:
    for name, frames in (("a.avi", 3), ("b.avi", 4)):
        write_video(tmp_path / name, frames=frames)
    out = write(predictor, tmp_path, [NOTHING] * 7, "a.avi", "b.avi", annotated=True)
    for name, frames in (("a", 3), ("b", 4)):
        video = cv2.VideoCapture(str(out / f"pictures/{name}.mp4"))
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.1)
        images = [video.read()[1] for _ in range(frames + 1)]
        assert images[-1] is None
        for number, pixels in enumerate(images[:-1]):
            assert pixels.shape == (48, 64, 3)
            assert np.abs(pixels[24, 32].astype(int) - (0, 0, 40 * number)).max() < 25  # BGR: red, brighter and brighter
    entries = json.loads((out / "predictions.json").read_text())["images"]
    assert [entry["frame"] for entry in entries] == [0, 1, 2, 0, 1, 2, 3]
    assert [entry["seconds"] for entry in entries] == pytest.approx([0, 0.1, 0.2, 0, 0.1, 0.2, 0.3])
