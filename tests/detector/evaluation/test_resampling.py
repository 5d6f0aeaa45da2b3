"""AP of resampled images against evaluations by pycocotools of these images and copies of them."""

import numpy as np
import pytest

from detector.evaluation import load_ground_truth, run_coco_eval
from detector.evaluation.resampling import bootstrap_counts, interval, match_images
from tests.detector.evaluation.cases import BIRD, CAT, DOG, annotation, rows
from tests.detector.fakes import coco_dict

IMAGES = list(range(1, 9))


def case(seed: int) -> tuple[list[dict], np.ndarray]:
    """Return objects and detections: crowds, an image without objects, one without detections, more than 100 in an image."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in IMAGES:
        boxes = [[*(4.0 * rng.integers(0, 8, 2)), *(8.0 * rng.integers(1, 4, 2))] for _ in range(6)]
        for box in boxes if image != 2 else []:
            objects.append(annotation(image, int(rng.choice([CAT, DOG])), box, iscrowd=int(rng.random() < 0.2)))
        for _ in range({1: 350, 3: 0}.get(image, 12)):
            box = (np.array(boxes[rng.integers(6)]) + rng.normal(0, 1, 4)).tolist()
            detections.append((image, int(rng.choice([CAT, DOG, BIRD])), box, float(rng.random())))
    return objects, rows(*detections)


def direct_ap(objects: list[dict], detections: np.ndarray, counts: list[int]) -> float:
    """Return pycocotools' AP of the images and as many copies of them as ``counts`` say, each with an id of its own."""
    copies = [(image, 100 * image + n) for image, count in zip(IMAGES, counts) for n in range(count)]
    copied = [o | {"image_id": new} for image, new in copies for o in objects if o["image_id"] == image]
    rows = [np.concatenate(([new], row[1:])) for image, new in copies for row in detections if row[0] == image]
    truth = load_ground_truth(coco_dict([new for _, new in copies], copied))
    return float(run_coco_eval(truth, np.array(rows).reshape(-1, 7), list(truth.imgs)).stats[0])


@pytest.mark.parametrize("seed", range(2))
def test_ap_of_a_resample_is_that_of_a_direct_evaluation(seed: int) -> None:
    objects, detections = case(seed)
    matches = match_images(load_ground_truth(coco_dict(IMAGES, objects)), detections, IMAGES)
    counts = np.concatenate((np.ones((1, 8), np.int64), bootstrap_counts(np.zeros(8), 4, seed)))
    got = matches.ap(counts)
    assert got.tolist() == pytest.approx([direct_ap(objects, detections, row) for row in counts.tolist()], abs=1e-12)
    assert len(set(got.tolist())) > 3
    some = np.arange(8) < 4
    expected = direct_ap(objects, detections, [1] * 4 + [0] * 4)
    assert matches.restricted(some).ap(counts[:1])[0] == pytest.approx(expected, abs=1e-12)
    assert matches.ap(some[None].astype(np.int64))[0] == pytest.approx(expected, abs=1e-12)


def test_samples_without_objects_or_detections() -> None:
    objects, detections = case(0)
    truth = load_ground_truth(coco_dict(IMAGES, objects))
    only_empty = (np.arange(8) == 1)[None].astype(np.int64)  # image 2 has no object
    assert np.isnan(match_images(truth, detections, IMAGES).ap(only_empty)).all()
    assert match_images(truth, detections[:0], IMAGES).ap(np.ones((1, 8), np.int64)).tolist() == [0]


def test_bootstrap_samples_have_as_many_images_of_each_source() -> None:
    sources = np.array([0, 0, 0, 1, 1, 2])
    counts = bootstrap_counts(sources, 50)
    assert [set(counts[:, sources == s].sum(axis=1)) for s in range(3)] == [{3}, {2}, {1}]
    assert counts[:, 0].std() > 0.5
    assert np.array_equal(counts, bootstrap_counts(sources, 50))
    assert interval(np.arange(1001.0)) == (25, 975)
