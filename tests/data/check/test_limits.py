"""The limits at which a data check warns, and the boxes that its page draws."""

from pathlib import Path

import numpy as np
import pytest

from data.annotations import Annotations
from data.check import report
from data.check.findings import FEW_OBJECTS, MAX_DETECTIONS, check_annotations, object_sides
from data.coco import read_coco
from tests.conftest import write_coco


def many_objects(root: Path, number: int) -> Annotations:
    """Return the annotations of a wide image with ``number`` objects of one class, in a row."""
    objects = [(7, n % 90, 2 + n // 90, 10, 5) for n in range(number)]
    write_coco(root, "train", [(40, 100, objects)], first_id=1)
    return read_coco(root / "annotations/train.json", root / "images/train")


@pytest.mark.parametrize(
    ("number", "text", "warned"),
    [
        (MAX_DETECTIONS, "more than 300 objects", False),
        (MAX_DETECTIONS + 1, "more than 300 objects", True),
        (FEW_OBJECTS, "fewer than 10 objects", False),
        (FEW_OBJECTS - 1, "fewer than 10 objects", True),
    ],
)
def test_a_limit_itself_is_allowed(tmp_path: Path, number: int, text: str, warned: bool) -> None:
    findings = check_annotations({"train": many_objects(tmp_path, number)}, (64, 64))
    assert any(text in finding.text for finding in findings if finding.level == "warning") == warned


@pytest.mark.parametrize(("size", "ratio"), [((64, 64), 0.64), ((32, 100), 0.8), ((40, 50), 0.5), ((80, 200), 2)])
def test_sides_are_those_in_the_input(tmp_path: Path, size: tuple[int, int], ratio: float) -> None:
    """The image is 40 x 100 (height x width) and the object 5 x 10."""
    np.testing.assert_allclose(object_sides(many_objects(tmp_path, 1), size), [50**0.5 * ratio])


def test_the_page_draws_boxes_at_the_edge_of_a_wide_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations, drawn = many_objects(tmp_path, 90), []
    monkeypatch.setattr(report, "draw_boxes", lambda image, boxes, labels, names: drawn.append((boxes, labels)) or image)
    report._sample_image(("train", 0), {"train": annotations}, side=200)
    ((boxes, labels),) = drawn
    assert boxes[-1].tolist() == [178, 4, 198, 14]  # twice as large as in the file
    assert labels.tolist() == [0] * 90
