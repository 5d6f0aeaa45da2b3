"""The choice of the worst errors, and how their images are read."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.report.errors import find_errors
from detector.report.images import read_image, worst_false_positives, worst_misses
from tests.detector.report.cases import evaluated, rows, truth

# In each of ten images a cat that is detected three times, and a box on nothing; in the fifth a dog detected as a cat.
IMAGES = tuple(range(1, 11))
CATS = [(image, 1, [0, 0, 20, 20]) for image in IMAGES]
DUPLICATES = [(image, 1, [0, 0, 20, 20], 0.99 - 0.01 * image) for image in IMAGES for _ in range(3)]
NOTHING = [(image, 1, [70, 70, 20, 20], 0.6 + 0.01 * image) for image in IMAGES]


def test_the_error_types_take_turns() -> None:
    objects, detections = [*CATS, (5, 5, [40, 0, 20, 20])], [*DUPLICATES, *NOTHING, (5, 1, [40, 0, 20, 20], 0.55)]
    _, _, matching = evaluated(truth(*objects, images=IMAGES), rows(*detections))
    errors = find_errors(matching, 0.5)
    chosen = worst_false_positives(matching, errors, 12)
    types = [errors.false_positives[row] for row in chosen]
    assert types[:5] == ["duplicate", "background", "classification", "duplicate", "background"]  # the only third type
    assert (types.count("duplicate"), types.count("background")) == (6, 5)
    for type_ in ("duplicate", "background"):
        scores = [matching.scores[row] for row in chosen if errors.false_positives[row] == type_]
        assert scores == sorted(scores, reverse=True)
    assert np.unique(matching.det_images[chosen], return_counts=True)[1].max() == 2  # of an image
    assert worst_false_positives(matching, errors, 3) == chosen[:3]


def test_no_error_type_is_left_out_for_its_image() -> None:
    detections = [(1, 1, [0, 0, 20, 20], 0.9), (1, 1, [0, 0, 20, 20], 0.8), (1, 1, [0, 9, 20, 20], 0.7), NOTHING[0]]
    _, _, matching = evaluated(truth(CATS[0]), rows(*detections))
    errors = find_errors(matching, 0.5)
    chosen = worst_false_positives(matching, errors, 12)
    assert [errors.false_positives[row] for row in chosen] == [
        "duplicate",
        "localization",
        "background",
    ]  # all of one image


def test_misses_take_turns() -> None:
    objects = [(image, 1, [0, 0, 20 + image, 20]) for image in IMAGES]
    detections = [(2, 1, [0, 0, 22, 20], 0.3)]  # below the threshold
    _, _, matching = evaluated(truth(*objects, images=IMAGES), rows(*detections))
    errors = find_errors(matching, 0.5)
    images = [int(matching.obj_images[row]) for row in worst_misses(matching, errors, 4)]
    assert images == [10, 2, 9, 8]  # 2: the only low score
    assert worst_misses(matching, find_errors(matching, 0.3), 12) == [9, 8, 7, 6, 5, 4, 3, 2, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_are_read_as_they_were_annotated(tmp_path: Path, suffix: str) -> None:
    name, exif = f"a.{suffix}", Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / name, exif=exif)

    def shape(height: int | None, width: int | None, upright: bool) -> tuple[int, ...] | None:
        pixels = read_image(tmp_path, {"file_name": name, "height": height, "width": width}, upright)
        return None if pixels is None else pixels.shape

    assert shape(20, 30, upright=False) == (20, 30, 3)
    assert shape(30, 20, upright=True) == (30, 20, 3)
    assert shape(30, 20, upright=False) == (30, 20, 3)  # only then the size is that on file
    assert shape(20, 30, upright=True) is None
    assert shape(None, None, upright=False) == (20, 30, 3)
    assert shape(10, 10, upright=False) is None


def test_files_that_are_no_images_give_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for entry in ({"file_name": "lost.png"}, {"file_name": "text.png"}, {}):
        assert read_image(tmp_path, entry, upright=False) is None
    cv2.imwrite(str(tmp_path / "gray.png"), np.zeros((4, 5), np.uint8))
    assert read_image(tmp_path, {"file_name": "gray.png"}, upright=False).shape == (4, 5, 3)
