"""docs/tracking_example.py: ids stay on a drawn clip, through ``to_supervision``. Skipped without the package trackers."""

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.predict import Detections

PATH = Path(__file__).parents[1] / "docs/tracking_example.py"


def boxes_at(time: int) -> list[list[float]]:
    """Two objects that pass each other at some distance, and a third one that comes later."""
    boxes = [[10.0 + 4 * time, 20, 40 + 4 * time, 50], [190.0 - 4 * time, 90, 220 - 4 * time, 120]]
    return boxes + [[100.0, 150 - time, 130, 180 - time]] * (time >= 10)


def drawn_clip() -> Iterator[np.ndarray]:
    for time in range(30):
        image = np.zeros((200, 240, 3), np.uint8)
        for number, (x1, y1, x2, y2) in enumerate(boxes_at(time)):
            image[int(y1) : int(y2), int(x1) : int(x2)] = 100 + 50 * number
        yield image


def see(images: list[np.ndarray], **_: object) -> list[Detections]:
    """Find the drawn rectangles by their gray; two frames miss one of them, and scores vary."""
    see.calls = getattr(see, "calls", -1) + 1
    boxes, labels = [], []
    for number in range(3):
        rows, columns = (images[0][..., 0] == 100 + 50 * number).nonzero()
        if len(rows) and not (number == 0 and see.calls in (14, 20)):
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            labels.append(number)
    names, scores = [f"object {label}" for label in labels], torch.full((len(boxes),), 0.9 - 0.01 * (see.calls % 5))
    return [Detections(torch.tensor(np.array(boxes)).float(), scores, torch.tensor(labels), names, labels)]


def test_ids_are_stable_on_a_drawn_clip() -> None:
    pytest.importorskip("trackers")
    spec = spec_from_file_location("tracking_example", PATH)
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    frames = list(example.track(drawn_clip(), see))
    assert len(frames) == 30
    ids: dict[str, set[int]] = {}
    for objects in frames[2:]:
        for one in objects:
            ids.setdefault(one["name"], set()).add(one["id"])
    assert sorted(ids) == ["object 0", "object 1", "object 2"]
    assert all(len(of_object) == 1 for of_object in ids.values())
    assert len(set.union(*ids.values())) == 3
    assert sum(len(objects) for objects in frames) >= 2 * 27 + 17
