"""Rotated rectangles in COCO files, as CVAT writes them: an upright box, and an angle beside it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.coco_entries import is_number
from data.remarks import Remark
from detector.batch import xyxy_to_xywh
from detector.text import plural


def upright_boxes(entries: Sequence[Any], bboxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, list[Remark]]:
    """Return ``bboxes`` (N, 4) x y width height, with those of rotated rectangles replaced, and a warning that counts these.

    The angle of an entry of 'annotations' is ``attributes.rotation`` or ``rotation`` in degrees, or ``angle``, which is
    taken as radians if all are within a turn of 2 pi. A rectangle is rotated about its center. The new box is the one around
    the rotated rectangle, clipped to the image, of height and width ``sizes`` (N, 2).
    """
    if all(entry.attributes is None and entry.rotation is None and entry.angle is None for entry in entries):
        return bboxes, []
    angles, keys = _angles(entries)
    rotated = np.flatnonzero(np.abs(np.sin(angles)) > 1e-6)  # half a turn changes nothing
    if not len(rotated):
        return bboxes, []
    boxes, around = bboxes.copy(), bboxes_around(bboxes[rotated], angles[rotated])
    limits = np.tile(sizes[rotated][:, ::-1], 2)
    boxes[rotated] = xyxy_to_xywh(around.clip(0, limits)).round(6)  # whole pixels after a quarter turn
    first = int(rotated[0])
    text = (
        f"{plural(len(rotated), 'annotation carries', 'annotations carry')} a rotation ({keys}), e.g. annotation "
        f"{entries[first].id} of {math.degrees(angles[first]):.4g} degrees; used is the upright box around the rotated "
        "rectangle, clipped to the image, in training, evaluation and ground_truth.json; the file has the unrotated one"
    )
    return boxes, [Remark("warning", text)]


def bboxes_around(bboxes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return the upright boxes (N, 4), x1 y1 x2 y2, around ``bboxes`` (N, 4), x y width height, rotated by radians (N,)."""
    cos, sin = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    width, height = bboxes[:, 2], bboxes[:, 3]
    sides = np.stack([width * cos + height * sin, width * sin + height * cos], axis=1)
    centers = bboxes[:, :2] + bboxes[:, 2:] / 2
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def _as_number(value: Any) -> float:
    """Return a number, which may be written as text; 0 for anything else."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return 0.0
    return number if is_number(number) else 0.0


def _angles(entries: Sequence[Any]) -> tuple[np.ndarray, str]:
    """Return each entry's angle in radians, (N,), 0 for none, and the names of the keys that have angles."""
    values = np.zeros(len(entries))
    in_radians = np.zeros(len(entries), bool)  # perhaps
    keys: set[str] = set()
    for n, entry in enumerate(entries):
        attributes = entry.attributes if isinstance(entry.attributes, dict) else {}
        named = {"attributes.rotation": attributes.get("rotation"), "rotation": entry.rotation}
        named |= {"attributes.angle": attributes.get("angle"), "angle": entry.angle}
        for key, value in named.items():
            value = _as_number(value)
            if value:
                values[n], in_radians[n] = value, key.endswith("angle")
                keys.add(key)
                break
    if (np.abs(values[in_radians]) > 2 * math.pi).any():
        in_radians[:] = False
    return np.where(in_radians, values, np.radians(values)), ", ".join(sorted(keys))
