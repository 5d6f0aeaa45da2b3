"""Ground truth and detections for tests of the evaluation, and plain pycocotools to compare with."""

import contextlib
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.backends import PACKAGES, Backend
from detector.evaluation.ids import Id
from tests.detector.fakes import CATEGORY_IDS, Answer, coco_dict, random_answer

CAT, DOG, BIRD = CATEGORY_IDS
FIRST_ID = 20_000_001  # too large for float32
IMAGES = list(range(FIRST_ID, FIRST_ID + 21))


def installed_backends() -> list[Backend]:
    """Return the backends that can be used here, pycocotools first."""
    return [backend for backend in get_args(Backend) if backend not in PACKAGES or find_spec(PACKAGES[backend])]


def annotation(image_id: int, category_id: int, box: list[float], **fields: Any) -> dict[str, Any]:
    """Return an annotation; ``box`` is x y width height. ``fields`` are added or replaced."""
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, **fields}


def rows(*detections: tuple[int, int, list[float], float]) -> np.ndarray:
    """Return detections (N, 7) for (image id, category id, x y width height, score) each."""
    return np.array([[image, *box, score, category] for image, category, box, score in detections]).reshape(-1, 7)


def answer_rows(answers: dict[int, Answer]) -> np.ndarray:
    """Return the detections (N, 7) of ``answers`` by image id."""
    flat = [(image_id, *detection) for image_id, answer in answers.items() for detection in answer]
    return rows(*[(i, CATEGORY_IDS[label], [x1, y1, x2 - x1, y2 - y1], s) for i, (x1, y1, x2, y2), s, label in flat])


def random_case(seed: int = 0) -> tuple[dict[str, Any], dict[int, Answer], dict[int, Answer]]:
    """Return ground truth for IMAGES, answers close to it, and unrelated answers.

    Some images have no objects, some no detections.
    """
    rng = np.random.default_rng(seed)
    objects, close, unrelated = [], {}, {}
    for image_id in IMAGES:
        answer = random_answer(rng, int(rng.integers(0, 6)))
        for (x1, y1, x2, y2), _, label in answer:
            crowd = int(rng.random() < 0.1)
            objects.append(annotation(image_id, CATEGORY_IDS[label], [x1, y1, x2 - x1, y2 - y1], iscrowd=crowd))
        close[image_id] = [((np.array(b) + rng.normal(0, 1, 4)).tolist(), score, label) for b, score, label in answer]
        unrelated[image_id] = random_answer(rng, int(rng.integers(0, 4)))
    return coco_dict(IMAGES, objects), close, unrelated


def plain_pycocotools(truth: dict[str, Any], predictions: Path, tmp_path: Path) -> tuple[list[float], list[float]]:
    """Evaluate two files as pycocotools' own documentation does. Return the twelve metrics and the AP of each class."""
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        coco_eval = COCOeval(coco, coco.loadRes(str(predictions)), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    precision = coco_eval.eval["precision"][:, :, :, 0, 2]
    return coco_eval.stats.tolist(), [precision[:, :, k].mean() for k in range(len(coco_eval.params.catIds))]


def with_ids(truth: dict[str, Any], image_ids: dict[int, Id], category_ids: dict[int, Id]) -> dict[str, Any]:
    """Return the content of an annotation file with other ids, given by the old ones."""
    return truth | {
        "images": [image | {"id": image_ids[image["id"]]} for image in truth["images"]],
        "categories": [category | {"id": category_ids[category["id"]]} for category in truth["categories"]],
        "annotations": [
            a | {"image_id": image_ids[a["image_id"]], "category_id": category_ids[a["category_id"]]}
            for a in truth["annotations"]
        ],
    }
