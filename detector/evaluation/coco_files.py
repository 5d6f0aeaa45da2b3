"""Read and write COCO annotation and results files."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from detector.batch import xyxy_to_xywh
from detector.files import atomic_write, read_json

IMAGE_KEYS = ("id", "file_name", "height", "width")
DETECTION_KEYS = ("image_id", "category_id", "bbox", "score")


def load_ground_truth(source: str | Path | Mapping[str, Any]) -> COCO:
    """Return a COCO annotation file, or its content, as a pycocotools object. ``source`` is not changed.

    Only the fields that boxes need are kept, and ``info``, which may name the folder of the images. A missing ``iscrowd`` is
    0 and a missing ``area`` is width times height; an area of 0 stays 0. Annotations get new ids, 1, 2, ...: for pycocotools
    the id 0 means "not matched", and of two annotations with the same id it uses the last one twice. Raises ValueError for
    other files.
    """
    name = str(source) if isinstance(source, str | Path) else "the ground truth"
    content = read_json(Path(source), dict, "a COCO annotation file") if isinstance(source, str | Path) else source
    if missing := [k for k in ("images", "annotations", "categories") if not isinstance(content.get(k), list)]:
        raise ValueError(f"{name} has no list of {', '.join(missing)}; give a COCO annotation file or its content")
    coco = COCO()
    coco.dataset = {
        "info": content["info"] if isinstance(content.get("info"), dict) else {},
        "images": [{key: image[key] for key in IMAGE_KEYS if key in image} for image in content["images"]],
        "categories": [{"id": c["id"], "name": str(c.get("name", c["id"]))} for c in content["categories"]],
        "annotations": [_annotation(name, i, a) for i, a in enumerate(content["annotations"], start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _annotation(name: str, number: int, annotation: Mapping[str, Any]) -> dict[str, Any]:
    if absent := [key for key in ("image_id", "category_id", "bbox") if key not in annotation]:
        raise ValueError(f"{name}: annotation {annotation.get('id')} has no {', '.join(absent)}; add or remove it")
    x, y, width, height = annotation["bbox"]
    ids = {"id": number, "image_id": annotation["image_id"], "category_id": annotation["category_id"]}
    area, iscrowd = annotation.get("area", width * height), annotation.get("iscrowd", 0)
    return ids | {"bbox": [x, y, width, height], "area": area, "iscrowd": iscrowd}


def detection_rows(image_id: int, boxes: np.ndarray, scores: np.ndarray, category_ids: np.ndarray) -> np.ndarray:
    """Return the detections of one image as (N, 7) float64: image_id x y width height score category_id.

    ``boxes`` (N, 4) are x1 y1 x2 y2 in pixels of the original image; ``scores`` (N,) are in 0..1. Boxes are rounded to 0.001
    px and scores to a ``score_step``, as in the results file, so that an evaluation of the file gives the same numbers to
    the bit.
    """
    rows = np.empty((len(boxes), 7))
    rows[:, 0] = image_id
    rows[:, 1:5] = xyxy_to_xywh(boxes.astype(np.float64)).round(3)
    rows[:, 5] = round_scores(scores.astype(np.float64))
    rows[:, 6] = category_ids
    return rows


def round_scores(scores: np.ndarray) -> np.ndarray:
    """Return ``scores`` (N,) float64 rounded to multiples of their ``score_step``."""
    steps_per_unit = _steps_per_unit(scores)
    return (scores * steps_per_unit).round() / steps_per_unit


def score_step(score: float) -> float:
    """Return the step to which a written score is rounded: 0.000001, and six significant digits below 0.1.

    A network that has learned little gives scores that are all small and differ late.
    """
    return float(1 / _steps_per_unit(np.float64(score)))


def _steps_per_unit(scores: np.ndarray) -> np.ndarray:
    exponents = np.floor(np.log10(np.maximum(scores, 1e-12)))
    return 10.0 ** (5 - np.minimum(exponents, -1))


def write_predictions(path: Path, detections: np.ndarray) -> None:
    """Write ``detections`` (N, 7), see ``detection_rows``, as a COCO results file. An existing file is replaced."""
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for number, (image_id, *bbox, score, category_id) in enumerate(detections.tolist()):
            entry = dict(zip(DETECTION_KEYS, (int(image_id), int(category_id), bbox, score)))
            file.write((",\n" if number else "[\n") + json.dumps(entry))  # one line each
        file.write("\n]\n" if len(detections) else "[]\n")


def read_predictions(path: Path) -> np.ndarray:
    """Read a COCO results file into (N, 7) rows, see ``detection_rows``. Raises ValueError for other files."""
    entries = read_json(path, list, "a COCO results file, as predictions.json of a run")
    rows = np.empty((len(entries), 7))
    for row, entry in zip(rows, entries):
        if not isinstance(entry, dict) or any(key not in entry for key in DETECTION_KEYS):
            raise ValueError(f"{path}: has the entry {str(entry)[:80]}; expected a dict with {', '.join(DETECTION_KEYS)}")
        row[:] = (entry["image_id"], *entry["bbox"], entry["score"], entry["category_id"])
    return rows


def write_ground_truth(path: Path, coco: COCO, image_ids: Sequence[int]) -> None:
    """Write the images ``image_ids`` of ``coco`` and their objects as a COCO annotation file."""
    evaluated = set(image_ids)
    added_keys = ("ignore", "_ignore")  # by pycocotools when it evaluates
    images = [image for image in coco.dataset["images"] if image["id"] in evaluated]
    objects = [annotation for annotation in coco.dataset["annotations"] if annotation["image_id"] in evaluated]
    annotations = [{key: value for key, value in entry.items() if key not in added_keys} for entry in objects]
    content = coco.dataset | {"images": images, "annotations": annotations}
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
