"""Every setting of ImageFolderDataModule reaches what it sets. A new setting needs a row here."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data import ClassAugmentation, ImageFolderDataModule
from tests.data.classification.conftest import CLASSES, write_class
from tests.data.classification.test_coco_classes import write as write_coco

Settings = dict[str, Any]
Observe = Callable[[ImageFolderDataModule], Any]


@pytest.fixture(scope="module")
def folder(class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with class folders under several names, and COCO files."""
    root = tmp_path_factory.mktemp("settings")
    for name in ("train", "val"):
        shutil.copytree(class_folders / name, root / name)
    shutil.copytree(class_folders / "val", root / "small")
    for name in CLASSES[:2]:
        write_class(root / "other/train", name, 1)
        write_class(root / "other/val", name, 1, first_mark=50)
    shutil.copytree(class_folders / "val", root / "dark/train")
    for path in (root / "dark/train").rglob("*.png"):
        cv2.imwrite(str(path), np.full((40, 48, 3), 1000, np.uint16))
    shutil.copytree(class_folders / "val", root / "bad/train")
    (root / "bad/train/red/1.png").write_bytes(b"hello")
    for name, classes in {"a": {1: [7], 2: [90]}, "b": {1: [7], 2: [90], 3: [90]}, "c": {1: [90]}}.items():
        write_coco(root, name, classes)
    return root


def numbers(data: ImageFolderDataModule) -> dict[str, int]:
    return data.num_images


def brightest(data: ImageFolderDataModule) -> int:
    return int(data.eval_dataloader("train").dataset[0].image.max())


def first_batches(data: ImageFolderDataModule) -> tuple[int, int]:
    """Return the number of images in the first batches of training and evaluation."""
    return tuple(len(next(iter(loader))["labels"]) for loader in (data.train_dataloader(), data.val_dataloader()))


def shape(data: ImageFolderDataModule) -> tuple[int, ...]:
    shapes = [tuple(loader.dataset[0].image.shape) for loader in (data.train_dataloader(), data.val_dataloader())]
    assert shapes == [(3, *data.size)] * 2 == [(3, *data.training_sizes[0])] * 2
    return shapes[0][1:]


def shows_the_edge(data: ImageFolderDataModule) -> bool:
    """Return True if the mark in the middle of the upper edge is seen in evaluation."""
    return len(np.unique(data.val_dataloader().dataset[0].image[0])) > 1


def order(data: ImageFolderDataModule) -> list[int]:
    return [key.index for key in data.train_dataloader().sampler]


def order_of(seed: int) -> list[int]:
    return np.random.default_rng([seed, 0]).permutation(12).tolist()


COCO = {"train_annotations": "a.json", "train_images": "a", "val_annotations": "a.json", "val_images": "a"}
MIXED = {"augment": ClassAugmentation(mixup=1.0)}
DEFAULT = {"train": 12, "val": 6}

# Setting; the settings to build with, before and after; what to observe; what is seen, before and after.
CASES: list[tuple[str, Settings, Settings, Observe, Any, Any]] = [
    ("root", {}, {"root": "other"}, numbers, DEFAULT, {"train": 2, "val": 2}),
    ("train", {}, {"train": "small"}, numbers, DEFAULT, {"train": 6, "val": 6}),
    ("val", {}, {"val": "train"}, numbers, DEFAULT, {"train": 12, "val": 12}),
    ("val", {}, {"val": None}, lambda data: sum(data.num_images.values()), 18, 12),
    ("val_share", {"val": None, "val_share": 0.25}, {"val": None, "val_share": 0.5},
     lambda data: data.num_images["val"], 5, 8),
    ("train_annotations", COCO, COCO | {"train_annotations": "b.json", "train_images": "b"}, numbers,
     {"train": 2, "val": 2}, {"train": 3, "val": 2}),
    ("train_images", COCO, COCO | {"train_images": "b"},
     lambda data: data.splits.splits["train"].name(0), "a/1.png", "b/1.png"),
    ("val_annotations", COCO, COCO | {"val_annotations": "c.json"}, numbers,
     {"train": 2, "val": 2}, {"train": 2, "val": 1}),
    ("val_images", COCO, COCO | {"val_images": "b"},
     lambda data: data.splits.splits["val"].name(0), "a/1.png", "b/1.png"),
    ("image_size", {}, {"image_size": (16, 24)}, shape, (32, 32), (16, 24)),
    ("batch_size", {}, {"batch_size": 5}, first_batches, (4, 4), (5, 5)),
    ("val_batch_size", {}, {"val_batch_size": 3}, first_batches, (4, 4), (4, 3)),
    ("num_workers", {}, {"num_workers": 1}, lambda data: data.train_dataloader().num_workers, 0, 1),
    ("seed", {}, {"seed": 1}, order, order_of(0), order_of(1)),
    ("augment", {}, MIXED, lambda data: data.train_dataloader().dataset[0].share < 1, False, True),
    ("crop_pct", {}, {"crop_pct": 1.0}, shows_the_edge, False, True),
    ("on_bad_image", {"root": "bad", "check": "none"}, {"root": "bad", "check": "none", "on_bad_image": "skip"},
     lambda data: data._readers["train"].skipped.on_bad_image, "raise", "skip"),
    ("sixteen_bit_range", {"root": "dark"}, {"root": "dark", "sixteen_bit_range": (0, 1023)}, brightest, 3, 250),
    ("license", {}, {"license": "CC0-1.0"}, lambda data: data.license, None, "CC0-1.0"),
    ("provenance", {}, {"provenance": "drawn"}, lambda data: data.provenance, None, "drawn"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
@pytest.mark.filterwarnings("ignore:.*(same content|no images)")
def test_every_setting_of_the_data_has_its_effect(
    folder: Path, class_arguments: Settings, monkeypatch: pytest.MonkeyPatch, case: tuple
) -> None:
    _, settings_before, settings_after, observe, before, after = case
    monkeypatch.chdir(folder)
    for settings, expected in ((settings_before, before), (settings_after, after)):
        held_out = {"val": None, "val_share": 0.5} if settings.get("root") in ("dark", "bad") else {}
        assert observe(ImageFolderDataModule(**class_arguments | {"root": "."} | held_out | settings)) == expected


@pytest.mark.filterwarnings("ignore:.*no images")
def test_the_check_of_files_can_be_left_out(folder: Path, class_arguments: Settings) -> None:
    arguments = class_arguments | {"root": str(folder / "bad"), "val": None, "val_share": 0.5}
    for check in ("auto", "all"):
        with pytest.raises(ValueError, match="1 image of 6 cannot be used"):
            ImageFolderDataModule(**arguments, check=check)
    assert sum(ImageFolderDataModule(**arguments, check="none").num_images.values()) == 6


def test_every_setting_of_the_data_has_a_case() -> None:
    assert {case[0] for case in CASES} | {"check"} == set(inspect.signature(ImageFolderDataModule).parameters)
