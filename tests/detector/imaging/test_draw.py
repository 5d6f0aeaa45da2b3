import itertools

import numpy as np
import pytest

from detector.imaging import draw
from detector.imaging.draw import class_color, draw_boxes, draw_note, draw_title, fit_longer_side, sheet

NAMES = ["cat", "a class with a very long name indeed", "café", "猫"]


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 114, dtype=np.uint8)


def test_no_boxes_leave_the_image_as_it_is() -> None:
    image = gray(40, 60)
    drawn = draw_boxes(image, np.zeros((0, 4)), np.zeros(0, dtype=int), NAMES, np.zeros(0))
    assert (drawn == image).all()
    assert drawn is not image


def test_the_outline_has_the_color_of_the_class_and_the_original_stays() -> None:
    image = gray(200, 300)
    drawn = draw_boxes(image, np.array([[50.0, 60.0, 150.0, 160.0]]), np.array([1]), NAMES)
    assert (image == 114).all()
    assert tuple(drawn[110, 50]) == class_color(1)
    assert tuple(drawn[160, 100]) == class_color(1)
    assert tuple(drawn[110, 100]) == (114, 114, 114)


@pytest.mark.parametrize("size", [(8, 8), (33, 65), (400, 40), (40, 400), (1081, 1921)])
def test_labels_stay_inside(size: tuple[int, int]) -> None:
    height, width = size
    corners = itertools.product([-20.0, 0.0, width / 2, width + 5.0], [-20.0, 0.0, height / 2, height + 5.0])
    boxes = np.array([[x, y, x + width / 3, y + height / 3] for x, y in corners])
    labels = np.arange(len(boxes)) % len(NAMES)
    drawn = draw_boxes(gray(*size), boxes, labels, NAMES, np.linspace(0, 1, len(boxes)))
    assert drawn.shape == (height, width, 3)
    assert drawn.dtype == np.uint8


def test_the_label_of_a_box_at_the_right_edge_is_moved_inside() -> None:
    drawn = draw_boxes(gray(200, 300), np.array([[290.0, 100.0, 299.0, 150.0]]), np.array([0]), NAMES, np.array([0.5]))
    label = (drawn == class_color(0)).all(axis=2)[:99]  # above the box
    columns = np.flatnonzero(label.any(axis=0))
    assert columns[0] < 270
    assert columns[-1] == 299


def test_boxes_that_are_not_finite_do_not_break_the_drawing() -> None:
    boxes = np.array([[np.nan, 0, 10, 10], [-np.inf, 0, np.inf, 1e30]])
    draw_boxes(gray(20, 20), boxes, np.array([0, 1]), NAMES)


def test_colors_of_neighboring_classes_differ() -> None:
    colors = np.array([class_color(label) for label in range(80)], dtype=int)
    assert len({tuple(color) for color in colors}) == 80
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 100


def test_a_sheet_of_uneven_rows_holds_every_image() -> None:
    a, b, c = gray(30, 40), np.zeros((20, 50, 3), dtype=np.uint8), np.full((10, 10, 3), 255, dtype=np.uint8)
    page = sheet([[a, b], [c]], margin=5)
    assert page.shape == (2 * (30 + 5) + 5, 2 * (50 + 5) + 5, 3)
    assert (page[5:35, 5:45] == a).all()
    assert (page[5:25, 60:110] == b).all()
    assert (page[40:50, 5:15] == c).all()


def test_captions_lie_above_their_images() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    page = sheet([[image]], [["3 objects"]], margin=5)
    assert (page[-205:-5, 5:-5] == 0).all()
    assert page[5:-205].min() < 120
    assert page.shape[0] > 210


def test_labels_have_the_digits_of_small_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    monkeypatch.setattr(draw.cv2, "putText", lambda image, text, *rest: texts.append(text))
    scores = np.array([0.0124, 0.999, 1e-7], np.float32)
    draw_boxes(gray(40, 60), np.zeros((3, 4)), np.zeros(3, dtype=int), NAMES, scores)
    assert texts == ["cat 1e-07", "cat 0.0124", "cat 0.999"]


def test_a_title_takes_the_lines_that_it_needs() -> None:
    image = gray(50, 200)
    assert draw_title(image, "short").shape == (72, 200, 3)
    titled = draw_title(image, "a title that is too long for one line of an image of two hundred pixels")
    assert titled.shape[0] > 50 + 2 * 22
    assert (titled[-50:] == image).all()
    assert (titled[: titled.shape[0] - 50] < 120).any(axis=(1, 2)).mean() > 0.3


def test_a_note_lies_at_the_bottom_and_not_on_small_images() -> None:
    large, small = gray(128, 300), gray(127, 300)
    noted = draw_note(large, "scores above 0.25")
    assert (large == 114).all()
    assert (noted[:100] == 114).all()
    assert (noted[-1, :3] == 40).all()
    assert (draw_note(small, "scores above 0.25") == 114).all()


def test_an_empty_sheet_is_an_image() -> None:
    assert sheet([]).ndim == 3
    assert sheet([[]], [[]]).size > 0


def test_boxes_grow_with_the_image() -> None:
    image, boxes = fit_longer_side(gray(30, 60), np.array([[10.0, 10.0, 20.0, 20.0]]), 120)
    assert image.shape == (60, 120, 3)
    assert boxes.tolist() == [[20.0, 20.0, 40.0, 40.0]]
    assert fit_longer_side(gray(3, 900), np.zeros((0, 4)), 90)[1].shape == (0, 4)
    assert fit_longer_side(gray(3, 900), np.array([[0, 0, 900, 3]]), 90)[1].tolist() == [[0, 0, 90, 1]]


def test_large_images_have_boxes_everywhere_and_thin_lines_for_tiles() -> None:
    """Before, boxes beyond 10,000 pixels were drawn at 10,000."""
    image = gray(20, 12_000)
    drawn = draw_boxes(image, np.array([[11_000.0, 5, 11_050, 15]]), np.array([0]), [""])
    assert not (drawn[:, 10_990:11_060] == image[:, 10_990:11_060]).all()
    assert (drawn[:, 9_900:10_100] == image[:, 9_900:10_100]).all()
    box = np.array([[300.0, 300, 500, 500]]), np.array([0]), ["a"]
    lines = [draw_boxes(gray(900, 900), *box, scale_side=side)[400] != gray(1, 1)[0] for side in (None, 300)]
    thick, thin = (line.any(axis=1).sum() for line in lines)
    assert thick > thin == 2
