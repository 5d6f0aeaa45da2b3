"""Pairs, kinds of mistakes and the confusion matrix, by hand and against a slow count."""

import numpy as np
import pytest

from detector.report.matching import KINDS, box_ious, confusion_matrix, mistakes
from tests.detector.report.scenes import judged, random_case, rows, truth

# Image 1: a cat that is found twice, a dog that is taken for a cat, a cat whose box is loose, a dog with a low score.
# Image 2: a crowd of cats, and a cat that nobody sees.
OBJECTS = (
    (1, 1, [0, 0, 20, 20]),
    (1, 5, [40, 0, 20, 20]),
    (1, 1, [0, 50, 20, 20]),
    (1, 5, [50, 50, 20, 20]),
    (2, 1, [0, 0, 50, 50], 1),
    (2, 1, [70, 70, 20, 20]),
)
FOUND = (
    (1, 1, [0, 0, 20, 20], 0.9),  # right
    (1, 1, [1, 0, 20, 20], 0.8),  # duplicate, IoU 380 / 420
    (1, 1, [40, 0, 20, 20], 0.7),  # class
    (1, 1, [0, 60, 20, 20], 0.6),  # loose, IoU 200 / 600
    (1, 5, [0, 65, 20, 20], 0.55),  # near a cat: loose and class, IoU 100 / 700
    (1, 5, [80, 80, 10, 10], 0.5),  # background
    (1, 5, [50, 50, 20, 20], 0.3),  # right, but below the threshold
    (2, 1, [10, 10, 20, 20], 0.95),  # in the crowd
)


def test_every_kind_of_mistake() -> None:
    _, _, matching = judged(truth(*OBJECTS), rows(*FOUND))
    out = mistakes(matching, 0.5)
    assert out.kinds.tolist() == ["", "duplicate", "class", "loose", "loose and class", "background", "", ""]
    assert set(KINDS) == {kind for kind in out.kinds if kind}
    assert out.misses.tolist() == ["", "class", "loose", "low score", "", "unseen"]
    assert mistakes(matching, 0.62).misses.tolist() == ["", "class", "unseen", "unseen", "", "unseen"]  # 0.3 is too low then
    assert out.found.tolist() == [True, False, False, False, False, False]
    assert out.confused.tolist() == [-1, 2, -1, -1, -1, -1]
    assert out.nearest.tolist() == [-1, 0, 1, 2, 2, -1, -1, -1]
    assert out.overlaps[[1, 2, 3, 4]] == pytest.approx([380 / 420, 1, 1 / 3, 1 / 7])
    assert out.shown.tolist() == [True] * 6 + [False] * 2
    # rows: cats, dogs, nothing
    assert confusion_matrix(matching, out).tolist() == [[1, 0, 2], [1, 0, 1], [2, 2, 0]]
    everything = mistakes(matching, 0.0)
    assert everything.misses.tolist() == ["", "class", "loose", "", "", "unseen"]


def test_a_confusion_takes_the_free_object_that_it_overlaps_most() -> None:
    objects = ((1, 5, [0, 0, 20, 20]), (1, 5, [4, 0, 20, 20]))
    found = ((1, 1, [3, 0, 20, 20], 0.9), (1, 1, [3, 0, 20, 20], 0.8), (1, 1, [3, 0, 20, 20], 0.7))
    _, _, matching = judged(truth(*objects), rows(*found))
    out = mistakes(matching, 0.5)
    assert out.confused.tolist() == [1, 0]
    assert out.kinds.tolist() == ["class"] * 3  # the third lies on a dog, too, but all dogs are taken
    assert confusion_matrix(matching, out).tolist() == [[0, 0, 0], [2, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_sums_agree_with_pycocotools(seed: int) -> None:
    content, detections = random_case(seed)
    _, verdict, matching = judged(content, detections)
    out = mistakes(matching, 0.3)
    counts = confusion_matrix(matching, out)
    everything = [e for e in verdict.evalImgs if e is not None and e["aRng"] == verdict.params.areaRng[0]]
    for k, category in enumerate(verdict.params.catIds):
        own = [e for e in everything if e["category_id"] == category]
        strong = [np.array(e["dtScores"]) >= 0.3 for e in own]
        right = sum(((e["dtMatches"][0] > 0) & ~e["dtIgnore"][0] & s).sum() for e, s in zip(own, strong))
        shown = sum((~e["dtIgnore"][0] & s).sum() for e, s in zip(own, strong))
        assert counts[k, k] == right
        assert counts[:, k].sum() == shown
        assert counts[k].sum() == sum((e["gtIgnore"] == 0).sum() for e in own)
    assert (out.misses != "").sum() == (~matching.crowds & ~out.found).sum()
    assert counts.sum() > counts.trace() > 0


@pytest.mark.parametrize(("objects", "found"), [((), FOUND), (OBJECTS, ()), ((), ())])
def test_nothing_to_match(objects: tuple, found: tuple) -> None:
    _, _, matching = judged(truth(*objects), rows(*found))
    out = mistakes(matching, 0.5)
    counts = confusion_matrix(matching, out)
    assert counts[-1].sum() == (7 if found else 0)  # without a crowd the one in image 2 counts, the last is below 0.5
    assert counts[:, -1].sum() == (5 if objects else 0)
    assert counts[:-1, :-1].sum() == 0


def test_box_ious() -> None:
    boxes, others = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [20, 20, 30, 30]])
    assert box_ious(boxes, others) == pytest.approx(np.array([[1 / 3, 0]]))
    assert box_ious(np.empty((0, 4)), others).shape == (0, 2)
