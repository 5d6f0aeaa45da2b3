"""A check of boxes against the segmentations of the same objects in a COCO file."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask

from data.remarks import Remark
from detector.batch import xywh_to_xyxy

NUM_SAMPLES = 500  # objects that are compared, evenly spaced: decoding all segmentations would take long
TOLERANCE, PIXELS = 0.1, 2.0  # sides may differ by this share of the box, and by as many pixels
MIN_SHARE = 0.1  # of the compared objects: fewer that differ give no remark


def segmentation_remarks(
    segmentations: list[msgspec.Raw], bboxes: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str]
) -> list[Remark]:
    """Return a warning if many of the ``bboxes`` (N, 4), x y width height, do not fit their segmentations.

    Polygons and run lengths are read. ``sizes`` (N, 2) are height and width of the objects' images; ``describe`` returns the
    name of an object.
    """
    if not segmentations:
        return []
    sampled = np.unique(np.linspace(0, len(segmentations) - 1, NUM_SAMPLES).round().astype(int))
    around = {n: box for n in sampled if (box := _box_around(segmentations[n], *sizes[n].tolist())) is not None}
    if len(around) < 3:
        return []
    boxes = xywh_to_xyxy(bboxes[list(around)])
    allowed = np.maximum(TOLERANCE * bboxes[list(around)][:, 2:].max(axis=1), PIXELS)
    differs = np.abs(boxes - np.array(list(around.values()))).max(axis=1) > allowed
    if differs.sum() < 3 or differs.mean() < MIN_SHARE:
        return []
    first = list(around)[int(np.flatnonzero(differs)[0])]
    shown = [round(side, 1) for side in around[first]]
    text = (
        f"{differs.sum()} of {len(around)} boxes that were compared do not fit their segmentation, e.g. {describe(first)}, "
        f"whose segmentation lies within {shown} (x1 y1 x2 y2); the boxes are used as they are"
    )
    return [Remark("warning", text)]


def _box_around(raw: msgspec.Raw, height: int, width: int) -> list[float] | None:
    """Return x1 y1 x2 y2 around a segmentation, or None if there is none, or if it is of another form."""
    try:
        content = msgspec.json.decode(raw)
        if isinstance(content, dict):
            box = xywh_to_xyxy(mask.toBbox(_compressed(content, height, width)))
        else:
            points = np.concatenate([np.array(polygon, float).reshape(-1, 2) for polygon in content])
            box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    except Exception:  # pycocotools raises errors of every kind for damaged run lengths
        return None
    return box.tolist() if (box[2:] > box[:2]).all() else None


def _compressed(content: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    if isinstance(content["counts"], list):
        return mask.frPyObjects(content, height, width)
    return content
