"""Read and write COCO annotation and results files."""

import json
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from detector.batch import xyxy_to_xywh
from detector.evaluation.ids import FLOAT_LIMIT, Id, Ids, checked_id, checked_ids
from detector.evaluation.silence import silent
from detector.files import atomic_write, read_json

IMAGE_KEYS = ("id", "file_name", "height", "width")
DETECTION_KEYS = ("image_id", "category_id", "bbox", "score")
KEYS_OF_PYCOCOTOOLS = ("ignore", "_ignore")  # which it adds to annotations when it evaluates


class GroundTruth(COCO):
    """Annotations as a pycocotools object, in which numbers stand for the ids of images and categories, see ``Ids``."""

    def __init__(self) -> None:
        super().__init__()
        self.image_ids, self.category_ids = Ids("image"), Ids("category")
        self.annotation_ids: list[Any] = []  # in the file, in the order of ``dataset["annotations"]``, which has new ones


def load_ground_truth(source: str | Path | Mapping[str, Any]) -> GroundTruth:
    """Return a COCO annotation file, or its content, as a pycocotools object. ``source`` is not changed.

    Ids of images and categories are exact: numbers stand for those that float64 would round, and for text (see ``Ids``).
    Only the fields that boxes need are kept, and ``info``, which may name the folder of the images. A missing ``iscrowd`` is
    0 and a missing ``area`` is width times height; an area of 0 stays 0. Annotations get new ids, 1, 2, ...: for pycocotools
    the id 0 means "not matched", and of two annotations with the same id it uses the last one twice. Raises ValueError for
    other files.
    """
    name = str(source) if isinstance(source, str | Path) else "the ground truth"
    content = read_json(Path(source), dict, "a COCO annotation file") if isinstance(source, str | Path) else source
    if missing := [k for k in ("images", "annotations", "categories") if not isinstance(content.get(k), list)]:
        raise ValueError(f"{name} has no list of {', '.join(missing)}; give a COCO annotation file or its content")
    images = [{key: image[key] for key in IMAGE_KEYS if key in image} for image in content["images"]]
    categories = [{"id": c.get("id"), "name": str(c.get("name", c.get("id")))} for c in content["categories"]]
    coco = GroundTruth()
    image_ids = checked_ids((image.get("id") for image in images), "image", name)
    category_ids = checked_ids((category["id"] for category in categories), "category", name)
    # Sorted, since the order of images decides between equal scores: the metrics are those of pycocotools to the bit.
    coco.image_ids, coco.category_ids = Ids("image", sorted(image_ids)), Ids("category", sorted(category_ids))
    for entry, id_ in zip(images, image_ids):
        entry["id"] = coco.image_ids.number(id_)
    for entry, id_ in zip(categories, category_ids):
        entry["id"] = coco.category_ids.number(id_)
    coco.dataset = {
        "info": content["info"] if isinstance(content.get("info"), dict) else {},
        "images": images,
        "categories": categories,
        "annotations": [_annotation(name, coco, i, a) for i, a in enumerate(content["annotations"], start=1)],
    }
    coco.annotation_ids = [annotation.get("id") for annotation in content["annotations"]]
    with silent():
        coco.createIndex()
    return coco


def _annotation(name: str, coco: GroundTruth, number: int, annotation: Mapping[str, Any]) -> dict[str, Any]:
    owner = f"{name}: annotation {annotation.get('id')}"
    if absent := [key for key in ("image_id", "category_id", "bbox") if key not in annotation]:
        raise ValueError(f"{owner} has no {', '.join(absent)}; add or remove it")
    bbox, area, iscrowd = annotation["bbox"], annotation.get("area"), annotation.get("iscrowd", 0)
    if not isinstance(bbox, Sequence | np.ndarray) or [isinstance(value, Real) for value in bbox] != [True] * 4:
        raise ValueError(f"{owner} has the bbox {bbox!r}; expected four numbers, x y width height")
    if not isinstance(area, Real | None):
        raise ValueError(f"{owner} has the area {area!r}; expected a number")
    if iscrowd not in (0, 1):
        raise ValueError(f"{owner} has iscrowd {iscrowd!r}; expected 0 or 1")
    image, category = _numbers(coco, annotation, owner)
    ids = {"id": number, "image_id": image, "category_id": category}
    area = bbox[2] * bbox[3] if area is None else area
    return ids | {"bbox": list(bbox), "area": area, "iscrowd": int(iscrowd)}


def _numbers(coco: GroundTruth, entry: Mapping[str, Any], owner: str) -> tuple[int, int]:
    """Return the numbers of the image_id and the category_id of an annotation or a detection."""
    try:
        image_id, category_id = checked_id(entry["image_id"], "image_id"), checked_id(entry["category_id"], "category_id")
        return coco.image_ids.number(image_id), coco.category_ids.number(category_id)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def detection_rows(image_id: int, boxes: np.ndarray, scores: np.ndarray, category_ids: np.ndarray) -> np.ndarray:
    """Return the detections of one image as (N, 7) float64: image_id x y width height score category_id.

    ``boxes`` (N, 4) are x1 y1 x2 y2 in pixels of the original image; ``scores`` (N,) are in 0..1. Boxes are rounded to 0.001
    px and scores to a ``score_step``, as in the results file, so that an evaluation of the file gives the same numbers to
    the bit. ``image_id`` and ``category_ids`` are numbers as ``Ids`` gives: the ids of the annotation file, if float64 holds
    them exactly. ValueError for others, which would be rounded.
    """
    rows = np.empty((len(boxes), 7))
    if any(isinstance(id_, str) or abs(int(id_)) > FLOAT_LIMIT for id_ in (image_id, *np.unique(category_ids).tolist())):
        raise ValueError(
            f"rows of detections cannot hold the ids of image {image_id!r} exactly; give their numbers, as "
            "load_ground_truth(...).image_ids.number(id) and category_ids.number(id)"
        )
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
    return float(1 / _steps_per_unit(np.array(score, np.float64)))


def _steps_per_unit(scores: np.ndarray) -> np.ndarray:
    exponents = np.floor(np.log10(np.maximum(scores, 1e-12)))
    return 10.0 ** (5 - np.minimum(exponents, -1))


def write_predictions(path: Path, detections: np.ndarray, truth: GroundTruth | None = None) -> None:
    """Write ``detections`` (N, 7), see ``detection_rows``, as a COCO results file. An existing file is replaced.

    The ids in the file are those of ``truth``, which may be left out if its ids are their own numbers.
    """
    truth = truth or GroundTruth()
    images, categories = _ids_as_json(detections[:, 0], truth.image_ids), _ids_as_json(detections[:, 6], truth.category_ids)
    text = str if np.isfinite(detections).all() else json.dumps  # the same for finite numbers, and twice as fast
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for number, (image, *bbox, score, category) in enumerate(detections.tolist()):
            ids = f'"image_id": {images[image]}, "category_id": {categories[category]}'
            file.write(f'{"," if number else "["}\n{{{ids}, "bbox": {text(bbox)}, "score": {text(score)}}}')  # one line each
        file.write("\n]\n" if len(detections) else "[]\n")


def _ids_as_json(numbers: np.ndarray, ids: Ids) -> dict[float, str]:
    """Return the ids of ``numbers`` (N,) as a JSON file has them."""
    return {number: json.dumps(ids.id(int(number))) for number in np.unique(numbers).tolist()}


def read_predictions(path: Path, truth: GroundTruth | None = None) -> np.ndarray:
    """Read a COCO results file into (N, 7) rows, see ``detection_rows``. Raises ValueError for other files.

    Without ``truth``, whose images they are of, ids must be whole numbers that float64 holds exactly.
    """
    entries = read_json(path, list, "a COCO results file, as predictions.json of a run")
    truth = truth or GroundTruth()
    rows = np.empty((len(entries), 7))
    for number, (row, entry) in enumerate(zip(rows, entries)):
        if not isinstance(entry, dict) or any(key not in entry for key in DETECTION_KEYS):
            raise ValueError(f"{path}: has the entry {str(entry)[:80]}; expected a dict with {', '.join(DETECTION_KEYS)}")
        image, category = _numbers(truth, entry, f"{path}: entry {number}")
        row[:] = (image, *entry["bbox"], entry["score"], category)
    return rows


def write_ground_truth(path: Path, coco: GroundTruth, image_ids: Sequence[Id]) -> None:
    """Write the images ``image_ids`` of ``coco`` and their objects, with the ids of its file, as a COCO annotation file."""
    evaluated = {coco.image_ids.number(id_) for id_ in image_ids}
    images = [image | {"id": coco.image_ids.id(image["id"])} for image in coco.dataset["images"] if image["id"] in evaluated]
    categories = [category | {"id": coco.category_ids.id(category["id"])} for category in coco.dataset["categories"]]
    annotations = [_file_annotation(a, coco) for a in coco.dataset["annotations"] if a["image_id"] in evaluated]
    content = coco.dataset | {"images": images, "annotations": annotations, "categories": categories}
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _file_annotation(annotation: Mapping[str, Any], coco: GroundTruth) -> dict[str, Any]:
    entry = {key: value for key, value in annotation.items() if key not in KEYS_OF_PYCOCOTOOLS}
    image_id, category_id = coco.image_ids.id(entry["image_id"]), coco.category_ids.id(entry["category_id"])
    return entry | {"image_id": image_id, "category_id": category_id}
