"""Detections: text, objects, choices and images of them."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from detector.predict import DetectedObject, Detections

IMAGE = np.full((60, 80, 3), 200, np.uint8)


@pytest.fixture
def detections() -> Detections:
    boxes = torch.tensor([[5.0, 5, 30, 30], [40, 10, 70, 50], [1, 2, 3, 4]])
    scores, labels = torch.tensor([0.567, 0.349, 0.2]), torch.tensor([1, 0, 1])
    names = ["raccoon", "cat", "raccoon"]
    return Detections(boxes, scores, labels, names, [9, 7, 9], image=IMAGE, class_names=["cat", "raccoon", "dog"])


def test_text(detections: Detections) -> None:
    assert repr(detections) == "3 objects: raccoon 0.567, cat 0.349, raccoon 0.2"
    assert repr(detections[:1]) == "1 object: raccoon 0.567"
    assert repr(detections["dog"]) == "no objects"
    assert repr(detections[[0] * 12]).endswith("raccoon 0.567, and 2 more")


def test_objects_one_by_one(detections: Detections) -> None:
    first, second, third = detections
    assert isinstance(first, DetectedObject)
    assert second == ((40, 10, 70, 50), pytest.approx(0.349), 0, "cat", 7)
    assert (first.box, first.name, first.label, first.category_id) == ((5, 5, 30, 30), "raccoon", 1, 9)
    assert (detections[-1], detections[np.int64(2)], detections[torch.tensor(2)]) == (third, third, third)
    for wrong in (3, -4, [0, 3]):
        with pytest.raises(IndexError, match=r"there is no object -?\d: there are 3 objects, counted from 0"):
            detections[wrong]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (slice(1, None), [1, 2]), ([2, 0], [2, 0]), ([], []), (np.array([-1]), [2]), ([True, False, True], [0, 2]),
        (torch.tensor([False, True, False]), [1]), ("raccoon", [0, 2]), ("dog", []),
    ],
)  # fmt: skip
def test_choices(detections: Detections, key: Any, expected: list[int]) -> None:
    chosen = detections[key]
    assert chosen.boxes.tolist() == detections.boxes[expected].tolist()
    assert chosen.scores.tolist() == detections.scores[expected].tolist()
    assert chosen.labels.tolist() == detections.labels[expected].tolist()
    assert chosen.names == [detections.names[n] for n in expected]
    assert chosen.category_ids == [detections.category_ids[n] for n in expected]
    assert chosen.image is IMAGE


def test_filter(detections: Detections) -> None:
    assert repr(detections.filter(0.3)) == "2 objects: raccoon 0.567, cat 0.349"
    assert detections.filter(score_threshold=0.3, classes=["raccoon", "dog"]).names == ["raccoon"]
    assert detections.filter(classes=[0]).names == ["cat"]
    assert len(detections.filter()) == 3
    for classes in ({"raccoon"}, np.array(["raccoon"]), torch.tensor([1]), np.array([1]), iter(["raccoon"])):
        assert detections.filter(classes=classes).names == ["raccoon"] * 2


def test_detections_are_equal_if_their_objects_are(detections: Detections) -> None:
    assert detections == replace(detections[:], image=None)
    assert detections in [detections[:1], detections[:]]
    for other in (detections[:2], detections[[0, 2, 1]], detections["dog"], replace(detections, names=["cat"] * 3), None):
        assert detections != other


def test_wrong_choices_are_refused(detections: Detections) -> None:
    for classes, message in (
        (["racoon"], "unknown class 'racoon'; did you mean raccoon"),
        ("cat", "classes is 'cat'; expected a list"),
        ([3], "label 3; this detector's are 0 to 2"),
        ([1.5], "a label of classes is 1.5"),
        (np.array(1), "classes is .*; expected a list"),
        (torch.tensor(1), "classes is .*; expected a list"),
    ):
        with pytest.raises(ValueError, match=message):
            detections.filter(classes=classes)
    with pytest.raises(ValueError, match="unknown class 'dogg'"):
        detections["dogg"]
    with pytest.raises(ValueError, match="score_threshold is 30"):
        detections.filter(30)
    with pytest.raises(
        TypeError, match=r"unknown argument conf; did you mean score_threshold\? It takes score_threshold, c"
    ):
        detections.filter(conf=0.3)
    for key in (1.5, [True], [[0]], [[0], [1, 2]], None, ["cat"]):
        with pytest.raises(IndexError, match="expected a number, a slice, a mask of 3"):
            detections[key]


def test_images(detections: Detections, tmp_path: Path) -> None:
    image = detections.plot()
    assert isinstance(image, PIL.Image.Image)
    pixels = np.asarray(image)
    assert pixels.shape == IMAGE.shape
    assert (pixels[30, 70] != 200).any()  # the right edge of the cat
    assert (IMAGE == 200).all()
    shown = PIL.Image.open(io.BytesIO(detections._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), pixels)
    for name in ("a.jpg", "a.PNG", "new/a.webp"):
        detections.save(tmp_path / name)
        assert PIL.Image.open(tmp_path / name).size == (80, 60)
    with pytest.raises(ValueError, match=r"a\.gif is no name of an image file; expected one that ends in \.jpg"):
        detections.save(tmp_path / "a.gif")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(
        ValueError, match=r"folder\.png is a folder; give the name of a file in it, as .*folder\.png/found\.jpg"
    ):
        detections.save(tmp_path / "folder.png")
    with pytest.raises(
        ValueError, match=r"b\.png cannot be written \(File exists\); give the name of a file in a folder that"
    ):
        detections.save(tmp_path / "a.jpg/b.png")
    with pytest.raises(ValueError, match=r"path is None; expected the path of an image file, as 'found\.jpg'"):
        detections.save(None)


def test_a_large_image_is_reduced_for_a_notebook() -> None:
    large = np.zeros((10, 2560, 3), np.uint8)
    found = Detections(
        torch.tensor([[0.0, 0, 2000, 10]]), torch.ones(1), torch.zeros(1, dtype=torch.long), ["a"], [1], large
    )
    shown = np.asarray(PIL.Image.open(io.BytesIO(found._repr_png_())))
    assert shown.shape == (5, 1280, 3)
    assert shown[2, 999:1002].any()
    assert not shown[:, 1010:].any()


def test_without_an_image_it_must_be_given(detections: Detections, tmp_path: Path) -> None:
    alone = Detections(*(getattr(detections, name) for name in ("boxes", "scores", "labels", "names", "category_ids")))
    assert alone._repr_png_() is None
    with pytest.raises(ValueError, match=r"do not have their image.*give it: plot\(image\)"):
        alone.plot()
    np.testing.assert_array_equal(np.asarray(alone.plot(IMAGE)), np.asarray(detections.plot()))
    assert alone["dogg"].names == []  # the classes of the detector are not known
