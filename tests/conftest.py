"""Fixtures for all tests: a tiny COCO set, written for each test that uses it."""

import gc

gc.disable()  # until all imports are done, see pytest_collection_finish

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch.utils.data._utils
import yaml

from tests.processes import processes  # noqa: F401, a fixture

# Seconds that torch waits for each worker of a loader that is collected as garbage, whose pipes may be closed already.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5

LONG = ("test_learning", "test_train", "test_pretrain", "test_own_block", "test_formats")
CATEGORIES = {7: "red", 22: "green", 90: "blue"}
COLORS = {7: (220, 40, 40), 22: (40, 220, 40), 90: (40, 40, 220)}  # RGB

# One image a row: height, width, then its objects as (category id, x, y, width, height).
TRAIN_IMAGES = [
    (48, 64, [(7, 10, 8, 20, 16), (22, 36, 20, 20, 24)]),
    (64, 48, [(90, 5, 10, 30, 20)]),
    (80, 60, [(22, 12, 30, 24, 40), (7, 4, 4, 16, 12)]),
    (33, 47, []),
    (64, 64, [(90, 20, 20, 24, 24)]),
    (100, 50, [(7, 8, 50, 30, 40)]),
    (40, 90, [(22, 5, 5, 30, 30), (90, 50, 8, 32, 20)]),
    (50, 50, [(7, 2, 2, 14, 14), (22, 30, 4, 16, 16), (90, 8, 26, 30, 20)]),
]
VAL_IMAGES = [
    (64, 64, [(7, 10, 10, 20, 30)]),
    (48, 80, [(22, 30, 8, 40, 30), (90, 4, 20, 16, 16)]),
    (70, 40, []),
    (35, 55, [(90, 10, 5, 25, 25)]),
    (60, 60, [(7, 4, 30, 22, 22), (22, 34, 6, 20, 40)]),
]
TRAIN_CROWD = (1, (7, 2, 34, 44, 28))  # image number and object
VAL_CROWD = (3, (7, 36, 2, 18, 30))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with long tests, and those that start processes, first.

    At the end, one process of pytest would run a long test while the other waits. The first tests are all run by the same
    process, so only one starts the fork server, which imports everything.
    """
    is_later = {path: not _is_first(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: is_later[item.path])


def _is_first(path: Path) -> bool:
    return path.stem in LONG or "\nfrom tests.processes import" in path.read_text(encoding="utf-8")


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, which would take a tenth of the tests' time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def lightning_log_level() -> None:
    """Reset the level of Lightning's logger: ``python -m data`` raises it."""
    logger = logging.getLogger("lightning.pytorch")
    logger.setLevel(logging.INFO)
    logger.propagate = True  # to pytest


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Path:
    """The folder of a COCO set of 8 training and 5 validation images, with objects painted as filled rectangles.

    Category ids are 7, 22 and 90. In each split, one image has no objects, and one has a crowd region, which is not
    painted. Image ids start at 101 for training and 201 for validation.
    """
    root = tmp_path / "tiny"
    write_coco(root, "train", TRAIN_IMAGES, first_id=101, crowd=TRAIN_CROWD)
    write_coco(root, "val", VAL_IMAGES, first_id=201, crowd=VAL_CROWD)
    return root


@pytest.fixture
def tiny_arguments(tiny_coco: Path) -> dict[str, Any]:
    """Arguments of CocoDataModule for the tiny set: 64 pixels, batches of 4, no worker processes."""
    return {
        "root": str(tiny_coco),
        "train_annotations": "annotations/train.json",
        "train_images": "images/train",
        "val_annotations": "annotations/val.json",
        "val_images": "images/val",
        "image_size": 64,
        "batch_size": 4,
        "num_workers": 0,
    }


@pytest.fixture
def arguments(tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of train.py for two epochs of a narrow dyn_n on the tiny set.

    The working directory, which is set, has ``tiny.yaml``. Weights of the reference need ``--model.overrides null``.
    """
    monkeypatch.chdir(tmp_path)
    config = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "model": {"variant": "dyn_n", "overrides": {"width": 0.125, "depth": 0.33}, "nominal_batch": 8},
        "data": tiny_arguments,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    return ["--config", "tiny.yaml"]


@pytest.fixture
def edit_json(tiny_coco: Path) -> Callable[[str, Callable[[dict[str, Any]], Any]], Path]:
    """A function that changes an annotation file of the tiny set: ``edit_json("train", lambda content: ...)``."""

    def edit(split: str, change: Callable[[dict[str, Any]], Any]) -> Path:
        path = tiny_coco / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return path

    return edit


def write_coco(root: Path, split: str, rows: list[tuple], first_id: int, crowd: tuple[int, tuple] | None = None) -> None:
    """Paint images into ``root/images/split`` and write ``root/annotations/split.json``; for ``rows`` see TRAIN_IMAGES."""
    (root / "images" / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number, (height, width, objects) in enumerate(rows):
        image_id, name = first_id + number, f"image_{number}.png"
        pixels = np.full((height, width, 3), 200, np.uint8)
        regions = [(*object_, 0) for object_ in objects]
        if crowd is not None and crowd[0] == number:
            regions.append((*crowd[1], 1))
        for category, x, y, w, h, is_crowd in regions:
            if not is_crowd:
                pixels[y : y + h, x : x + w] = COLORS[category]
            annotations.append(
                {
                    "id": first_id * 10 + len(annotations),
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": is_crowd,
                    "segmentation": [],
                }
            )
        cv2.imwrite(str(root / "images" / split / name), pixels[:, :, ::-1])
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    categories = [{"id": id_, "name": name} for id_, name in CATEGORIES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
