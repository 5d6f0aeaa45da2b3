"""The number of a run that decides: NMS-free AP, or AP50 of any class where classes are too many to learn."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipe.settings import SETS
from detector.evaluation import evaluate, load_ground_truth, read_predictions
from detector.evaluation.coco_files import GroundTruth
from detector.files import read_json
from detector.runs.folder import ground_truth_file, predictions_file

ANY = "AP50 of any class"


def numbers_of(content: dict[str, Any], truth: GroundTruth, rows: np.ndarray, any_class: bool) -> dict[str, float]:
    """Return AP and AP50 of detections ``rows``, and with ``any_class`` the AP50 that takes all classes for one.

    ``content`` is that of the annotation file, and ``truth`` what ``load_ground_truth`` makes of it.
    """
    metrics = evaluate(truth, rows).metrics
    numbers = {name: float(metrics[name]) for name in ("AP", "AP50")}
    return numbers | ({ANY: any_class_ap50(content, rows)} if any_class else {})


def any_class_ap50(content: dict[str, Any], rows: np.ndarray) -> float:
    """Return the AP50 with one class for all objects; of detections with the same box, the best one counts."""
    annotations = [entry | {"category_id": 1} for entry in content["annotations"]]
    merged = content | {"annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    truth = load_ground_truth(merged)
    best_first = rows[np.argsort(-rows[:, 5], kind="stable")]
    _, first = np.unique(best_first[:, :5], axis=0, return_index=True)
    one_class = best_first[np.sort(first)].copy()
    one_class[:, 6] = truth.category_ids.number(1)
    return float(evaluate(truth, one_class).metrics["AP50"])


def numbers_of_run(folder: Path, data: str) -> dict[str, float]:
    """Return the numbers of the last validation of a finished run, NMS-free."""
    path = folder / ground_truth_file("val")
    truth = load_ground_truth(path)
    rows = read_predictions(folder / predictions_file("val"), truth)
    content = read_json(path, dict, "the ground truth of a run")
    return numbers_of(content, truth, rows, SETS[data].number == ANY)
