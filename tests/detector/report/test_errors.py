"""Error types and the confusion matrix, by hand and against a slow count."""

import numpy as np
import pytest

from detector.report.errors import FALSE_POSITIVES, MISSES, confusion_matrix, find_errors
from tests.detector.report.cases import evaluated, random_case, rows, truth

# Image 1: a cat that is detected twice, a dog detected as a cat, a cat whose box does not fit, a dog with a low score.
# Image 2: a crowd of cats, and a cat without a detection.
OBJECTS = (
    (1, 1, [0, 0, 20, 20]),
    (1, 5, [40, 0, 20, 20]),
    (1, 1, [0, 50, 20, 20]),
    (1, 5, [50, 50, 20, 20]),
    (2, 1, [0, 0, 50, 50], 1),
    (2, 1, [70, 70, 20, 20]),
)
DETECTIONS = (
    (1, 1, [0, 0, 20, 20], 0.9),  # right
    (1, 1, [1, 0, 20, 20], 0.8),  # duplicate, IoU 380 / 420
    (1, 1, [40, 0, 20, 20], 0.7),  # classification
    (1, 1, [0, 60, 20, 20], 0.6),  # localization, IoU 200 / 600
    (1, 5, [0, 65, 20, 20], 0.55),  # near a cat: both, IoU 100 / 700
    (1, 5, [80, 80, 10, 10], 0.5),  # background
    (1, 5, [50, 50, 20, 20], 0.3),  # right, but below the threshold
    (2, 1, [10, 10, 20, 20], 0.95),  # in the crowd
)


def test_every_error_type() -> None:
    _, _, matching = evaluated(truth(*OBJECTS), rows(*DETECTIONS))
    errors = find_errors(matching, 0.5)
    assert errors.false_positives.tolist() == [
        "",
        "duplicate",
        "classification",
        "localization",
        "both",
        "background",
        "",
        "",
    ]
    assert set(FALSE_POSITIVES) == {type_ for type_ in errors.false_positives if type_}
    assert errors.misses.tolist() == ["", "classification", "localization", "low score", "", "missed"]
    assert set(MISSES) == {type_ for type_ in errors.misses if type_}
    higher = find_errors(matching, 0.62)
    assert higher.misses.tolist() == ["", "classification", "missed", "missed", "", "missed"]  # 0.3 is too low for it
    assert errors.detected.tolist() == [True, False, False, False, False, False]
    assert errors.confusions.tolist() == [-1, 2, -1, -1, -1, -1]
    assert errors.nearest.tolist() == [-1, 0, 1, 2, 2, -1, -1, -1]
    assert errors.overlaps[[1, 2, 3, 4]] == pytest.approx([380 / 420, 1, 1 / 3, 1 / 7])
    assert errors.shown.tolist() == [True] * 6 + [False] * 2
    # rows: cats, dogs, nothing
    assert confusion_matrix(matching, errors).tolist() == [[1, 0, 2], [1, 0, 1], [2, 2, 0]]
    everything = find_errors(matching, 0.0)
    assert everything.misses.tolist() == ["", "classification", "localization", "", "", "missed"]


def test_a_confusion_takes_the_free_object_that_it_overlaps_most() -> None:
    objects = ((1, 5, [0, 0, 20, 20]), (1, 5, [4, 0, 20, 20]))
    detections = ((1, 1, [3, 0, 20, 20], 0.9), (1, 1, [3, 0, 20, 20], 0.8), (1, 1, [3, 0, 20, 20], 0.7))
    _, _, matching = evaluated(truth(*objects), rows(*detections))
    errors = find_errors(matching, 0.5)
    assert errors.confusions.tolist() == [1, 0]
    assert errors.false_positives.tolist() == ["classification"] * 3  # the third lies on a dog, too, but all dogs are taken
    assert confusion_matrix(matching, errors).tolist() == [[0, 0, 0], [2, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_sums_agree_with_pycocotools(seed: int) -> None:
    content, detections = random_case(seed)
    _, coco_eval, matching = evaluated(content, detections)
    errors = find_errors(matching, 0.3)
    counts = confusion_matrix(matching, errors)
    everything = [e for e in coco_eval.evalImgs if e is not None and e["aRng"] == coco_eval.params.areaRng[0]]
    for k, category in enumerate(coco_eval.params.catIds):
        of_class = [e for e in everything if e["category_id"] == category]
        strong = [np.array(e["dtScores"]) >= 0.3 for e in of_class]
        right = sum(((e["dtMatches"][0] > 0) & ~e["dtIgnore"][0] & s).sum() for e, s in zip(of_class, strong))
        shown = sum((~e["dtIgnore"][0] & s).sum() for e, s in zip(of_class, strong))
        assert counts[k, k] == right
        assert counts[:, k].sum() == shown
        assert counts[k].sum() == sum((e["gtIgnore"] == 0).sum() for e in of_class)
    assert (errors.misses != "").sum() == (~matching.crowds & ~errors.detected).sum()
    assert counts.sum() > counts.trace() > 0


@pytest.mark.parametrize(("objects", "detections"), [((), DETECTIONS), (OBJECTS, ()), ((), ())])
def test_nothing_to_match(objects: tuple, detections: tuple) -> None:
    _, _, matching = evaluated(truth(*objects), rows(*detections))
    errors = find_errors(matching, 0.5)
    counts = confusion_matrix(matching, errors)
    assert counts[-1].sum() == (7 if detections else 0)  # without a crowd the one in image 2 counts, the last is below 0.5
    assert counts[:, -1].sum() == (5 if objects else 0)
    assert counts[:-1, :-1].sum() == 0
