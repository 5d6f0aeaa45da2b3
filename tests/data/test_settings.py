"""Every setting of CocoDataModule and of Augmentation reaches what it sets. A new setting needs a row here."""

import colorsys
import dataclasses
import inspect
import json
import shutil
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from data import Augmentation, CocoDataModule
from data import cache as cache_module
from data.reader import ImageReader
from data.sampler import SampleKey
from detector.imaging.read import BadImageError
from tests.data.test_datamodule import fake_trainer

STILL = {"mosaic": 0.0, "mixup": 0.0, "scale": 0.0, "translate": 0.0, "fliplr": 0.0, "hsv": (0.0, 0.0, 0.0)}
ALL = {"train": 8, "val": 5, "test": 5}  # images of each split
Settings = dict[str, Any]
Build = Callable[..., CocoDataModule]


@pytest.fixture
def build(tiny_arguments: Settings, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A function that builds the data of the tiny set: still images, no cache, and a test split; with other settings.

    ``annotations/fewer_<split>.json`` lists one image less than the split, and ``images/dark_<split>`` has black images.
    The folder ``dark`` is a set with black images.
    """
    for split in ("train", "val"):
        content = json.loads((tiny_coco / f"annotations/{split}.json").read_text())
        (tiny_coco / f"images/dark_{split}").mkdir()
        for image in content["images"]:
            pixels = np.zeros((image["height"], image["width"], 3), np.uint8)
            cv2.imwrite(str(tiny_coco / f"images/dark_{split}" / image["file_name"]), pixels)
        last = content["images"].pop()
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != last["id"]]
        (tiny_coco / f"annotations/fewer_{split}.json").write_text(json.dumps(content))
        shutil.copytree(tiny_coco / f"images/dark_{split}", tmp_path / f"dark/images/{split}")
    shutil.copytree(tiny_coco / "annotations", tmp_path / "dark/annotations")
    monkeypatch.chdir(tmp_path)
    test = {"test_annotations": "annotations/val.json", "test_images": "images/val"}
    base = tiny_arguments | test | {"cache": "none", "batch_size": 3}

    def build(augment: Settings | None = None, **settings: Any) -> CocoDataModule:
        return CocoDataModule(**base | settings, augment=Augmentation(**STILL | (augment or {})))

    return build


def each(value: Any) -> dict[str, Any]:
    """Return ``value`` for each split."""
    return dict.fromkeys(ALL, value)


def by_split(observe: Callable[[Any], Any]) -> Callable[[CocoDataModule], dict[str, Any]]:
    """Return a function that observes the loader of each split."""

    def observe_all(data: CocoDataModule) -> dict[str, Any]:
        loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
        return {split: observe(loader) for split, loader in loaders.items()}

    return observe_all


def num_images(loader: Any) -> int:
    return sum(len(batch["targets"]) for batch in loader)


def first_batch(loader: Any) -> int:
    """Return the number of images in the first batch."""
    return len(next(iter(loader))["targets"])


def brightest(loader: Any) -> int:
    return max(int(batch["images"].max()) for batch in loader)


def shapes(loader: Any) -> list[tuple[int, ...]]:
    """Return height and width of every batch."""
    return [tuple(batch["images"].shape[2:]) for batch in loader]


def labels(loader: Any) -> set[int]:
    return {label for batch in loader for target in batch["targets"] for label in target["labels"].tolist()}


def num_workers(loader: Any) -> int:
    return loader.num_workers


def train_order(data: CocoDataModule) -> list[int]:
    """Return the image ids of an epoch as a training sees them."""
    return [target["image_id"] for batch in data.train_dataloader() for target in batch["targets"]]


def order(seed: int) -> list[int]:
    """Return the image ids in the order of the first epoch."""
    return (101 + np.random.default_rng([seed, 0]).permutation(8)).tolist()


def outcome_with_bad_images(data: CocoDataModule) -> dict[str, Any]:
    """Return the number of images of each split, or "error", after one image of each folder was spoilt."""
    for split in ("train", "val"):
        Path(f"tiny/images/{split}/image_1.png").write_bytes(b"spoilt")

    def outcome(loader: Any) -> int | str:
        try:
            return num_images(loader)
        except BadImageError:
            return "error"

    return by_split(outcome)(data)


def brightest_of_sixteen_bits(data: CocoDataModule) -> dict[str, int]:
    """Return the brightest value of each split after all images were replaced by ones with 16-bit samples of 4000."""
    for annotations in data.annotations.values():
        for n in range(len(annotations)):
            cv2.imwrite(str(annotations.image_path(n)), np.full(annotations.size(n), 4000, np.uint16))
    return by_split(brightest)(data)


def decoded(data: CocoDataModule, max_epochs: int = 3) -> list[int]:
    """Return the number of training images decoded before training, and in each of three epochs."""
    calls, original = [], ImageReader.read_scaled
    data.trainer = fake_trainer(world_size=1, max_epochs=max_epochs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageReader, "read_scaled", lambda *args: calls.append(1) or original(*args))
        loader = data.train_dataloader()
        numbers = [0, len(calls)]
        for _ in range(3):
            num_images(loader)
            numbers.append(len(calls))
    return np.diff(numbers).tolist()


MOSAIC = {"augment": {"mosaic": 1.0, "close_mosaic": 0}}
FEWER, DARK = "annotations/fewer_{}.json", "images/dark_{}"
LARGE = {"image_size": 96}
NO_VAL = {"val_annotations": None, "val_images": None}


def split_sizes(data: CocoDataModule) -> tuple[int, int]:
    """Return the numbers of training and validation images."""
    return len(data.annotations["train"]), len(data.annotations["val"])


# Setting; the settings to build with, before and after; what to observe; what is seen, before and after.
CASES: list[tuple[str, Settings, Settings, Callable[[CocoDataModule], Any], Any, Any]] = [
    ("root", {}, {"root": "dark"}, by_split(brightest), each(220), each(114)),
    *[
        (f"{split}_annotations", {}, {f"{split}_annotations": FEWER.format(folder)}, by_split(num_images), ALL,
         ALL | {split: ALL[split] - 1})
        for split, folder in (("train", "train"), ("val", "val"), ("test", "val"))
    ],
    *[
        (f"{split}_images", {}, {f"{split}_images": DARK.format(folder)}, by_split(brightest), each(220),
         each(220) | {split: 114})
        for split, folder in (("train", "train"), ("val", "val"), ("test", "val"))
    ],
    ("val_split", NO_VAL, NO_VAL | {"val_split": 0.9}, split_sizes, (7, 1), (2, 6)),
    ("image_size", {}, {"image_size": (32, 96)}, by_split(lambda loader: set(shapes(loader))),
     each({(64, 64)}), each({(32, 96)})),
    ("batch_size", {}, {"batch_size": 2}, by_split(first_batch), each(3), each(2)),
    ("val_batch_size", {}, {"val_batch_size": 4}, by_split(first_batch), each(3),
     {"train": 3, "val": 4, "test": 4}),
    ("num_workers", {}, {"num_workers": 1}, by_split(num_workers), each(0), each(1)),
    ("seed", {}, {"seed": 1}, train_order, order(0), order(1)),
    ("augment", {}, MOSAIC, decoded, [0, 8, 8, 8], [0, 32, 32, 32]),
    ("transforms", {}, {"transforms": [{"InvertImg": {"p": 1}}]}, by_split(brightest), each(220),
     {"train": 215, "val": 220, "test": 220}),
    ("single_cls", {}, {"single_cls": True}, by_split(labels), each({0, 1, 2}), each({0})),
    ("on_bad_image", {}, {"on_bad_image": "skip"}, outcome_with_bad_images, each("error"), ALL),
    ("sixteen_bit_range", {}, {"sixteen_bit_range": (0, 4000)}, brightest_of_sixteen_bits, each(114), each(255)),
    ("cache", MOSAIC, {**MOSAIC, "cache": "recent"}, decoded, [0, 32, 32, 32], [0, 8, 8, 8]),
    ("cache", MOSAIC, {**MOSAIC, "cache": "ram"}, decoded, [0, 32, 32, 32], [8, 0, 0, 0]),
    ("repeat_threshold", {}, {"repeat_threshold": 1.0}, lambda data: (len(train_order(data)), data.num_train_samples),
     (8, 8), (11, 11)),
    ("rect", LARGE, LARGE | {"rect": True, "val_batch_size": 1}, lambda data: shapes(data.val_dataloader()),
     [(96, 96)] * 2, [(64, 96), (64, 96), (96, 96), (96, 96), (96, 64)]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
@pytest.mark.filterwarnings("ignore:skipped")
def test_every_setting_of_the_data_has_its_effect(build: Build, case: tuple) -> None:
    _, settings_before, settings_after, observe, before, after = case
    assert observe(build(**settings_before)) == before
    assert observe(build(**settings_after)) == after


def test_every_setting_of_the_data_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(inspect.signature(CocoDataModule).parameters)


def seen_in_training(data: CocoDataModule) -> set[str]:
    """Return in words what differs between the samples of some epochs, judged by two images.

    In image 0 a red object lies left of a green one. In image 4 a square of 24 pixels lies in the center.
    """
    dataset, seen = data.train_dataloader().dataset, set()
    for epoch in range(40):
        image, target = dataset[SampleKey(0, epoch, data.size)]
        if target["labels"].tolist() == [0, 1]:
            (x1, y1, x2, y2), other = target["boxes"].tolist()
            seen |= {"mirrored"} if x1 > other[0] else set()
            seen |= changes_of_red(image[int((y1 + y2) / 2), int((x1 + x2) / 2)].tolist())
        if len(boxes := dataset[SampleKey(4, epoch, data.size)].target["boxes"]):
            seen |= changes_of_square(boxes[0].tolist())
    return seen


def changes_of_square(box: list[float]) -> set[str]:
    """Return what was done to the centered square of 24 pixels, whose upright box is now ``box``."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    changes = {
        "smaller": max(width, height) < 20,
        "larger": min(width, height) > 26,
        "moved": max(abs(x1 + x2 - 64), abs(y1 + y2 - 64)) > 4,
        "slanted": abs(width - height) > 2,  # turned, a square has a larger box, which is a square, too
    }
    return {change for change, happened in changes.items() if happened}


def changes_of_red(pixel: list[int]) -> set[str]:
    """Return what was done to the color (220, 40, 40)."""
    before, after = (colorsys.rgb_to_hsv(*np.divide(color, 255)) for color in ((220, 40, 40), pixel))
    hue, saturation, value = np.abs(np.subtract(after, before))
    changes = {"hue": min(hue, 1 - hue) > 0.05, "saturation": saturation > 0.1, "value": value > 0.1}
    return {change for change, happened in changes.items() if happened}


def groups_of_partners(data: CocoDataModule) -> int:
    """Return into how many groups the images of an epoch fall, of which none is mixed with an image of another group."""
    loader, groups = data.train_dataloader(), []
    for key in loader.sampler:
        mixed = set(loader.dataset.dataset.describe(key).replace(", ", " ").split()) & {
            str(path) for path in Path("tiny/images/train").resolve().iterdir()
        }
        joined = [group for group in groups if group & mixed]
        groups = [group for group in groups if not group & mixed] + [mixed.union(*joined)]
    return len(groups)


def train_shapes(data: CocoDataModule) -> set[tuple[int, ...]]:
    loader = data.train_dataloader()
    return {shape for _ in range(6) for shape in shapes(loader)}


OPEN = {"close_mosaic": 0}
MIXED = {"mosaic": 1.0, "mixup": 1.0, "close_mosaic": 0}
# Field of Augmentation; fields before and after; what to observe; what is seen, before and after.
AUGMENT_CASES: list[tuple[str, Settings, Settings, Callable[[CocoDataModule], Any], Any, Any]] = [
    ("mosaic", OPEN, OPEN | {"mosaic": 1.0}, decoded, [0, 8, 8, 8], [0, 32, 32, 32]),
    ("mixup", OPEN, OPEN | {"mixup": 1.0}, decoded, [0, 8, 8, 8], [0, 16, 16, 16]),
    ("pool", MIXED, MIXED | {"pool": 4}, groups_of_partners, 1, 2),
    ("scale", {}, {"scale": 0.5}, seen_in_training, set(), {"smaller", "larger"}),
    ("translate", {}, {"translate": 0.2}, seen_in_training, set(), {"moved"}),
    ("degrees", {}, {"degrees": 45.0}, seen_in_training, set(), {"larger"}),
    ("shear", {}, {"shear": 30.0}, seen_in_training, set(), {"larger", "slanted"}),
    ("fliplr", {}, {"fliplr": 1.0}, seen_in_training, set(), {"mirrored"}),
    ("hsv", {}, {"hsv": (0.2, 0.0, 0.0)}, seen_in_training, set(), {"hue"}),
    ("hsv", {}, {"hsv": (0.0, 0.5, 0.0)}, seen_in_training, set(), {"saturation"}),
    ("hsv", {}, {"hsv": (0.0, 0.0, 0.5)}, seen_in_training, set(), {"value"}),
    ("multi_scale", {}, {"multi_scale": 0.5}, train_shapes, {(128, 128)}, {(64, 64), (128, 128), (192, 192)}),
]


@pytest.mark.parametrize("case", AUGMENT_CASES, ids=[case[0] for case in AUGMENT_CASES])
def test_every_field_of_the_augmentation_has_its_effect(build: Build, case: tuple) -> None:
    field, fields_before, fields_after, observe, before, after = case
    settings = {"image_size": 128, "val_batch_size": 5} if field == "multi_scale" else {}
    assert observe(build(fields_before, **settings)) == before
    assert observe(build(fields_after, **settings)) == after


@pytest.mark.parametrize("close", [0, 1, 2, 3])
def test_mosaic_and_mixup_end_with_the_last_epochs(build: Build, close: int) -> None:
    """Of three epochs the last ``close`` have neither: an image of the others is made of eight."""
    data = build(MIXED | {"close_mosaic": close})
    assert decoded(data, max_epochs=3) == [0] + [64] * (3 - close) + [8] * close


def test_every_field_of_the_augmentation_has_a_case() -> None:
    fields = {field.name for field in dataclasses.fields(Augmentation)}
    assert {case[0] for case in AUGMENT_CASES} == fields - {"close_mosaic"}  # which has a test of its own


# Settings of several processes; the first three are batch_size, the number of processes and the pool.
@pytest.mark.parametrize(
    ("batch_size", "processes", "pool", "max_pools"),
    [(2, 1, 4, 8), (2, 2, 4, 8), (4, 2, 4, 2), (3, 1, 4, 2), (2, 1, 0, None)],
)
def test_the_cache_keeps_as_many_pools_as_a_worker_needs(
    build: Build, batch_size: int, processes: int, pool: int, max_pools: int | None
) -> None:
    """Pools rotate if the batches of all processes together fill a pool. One pool of all images is not kept in memory."""
    data = build({"pool": pool}, cache="recent", batch_size=batch_size)
    data.trainer = fake_trainer(world_size=processes)
    cache = data.train_dataloader().dataset.dataset.cache
    assert (None if cache is None else cache.max_pools) == max_pools


def test_rectangles_are_shared_by_the_batches_of_all_processes(build: Build) -> None:
    """Two processes with batches of two: each group of four images, by aspect ratio, has one size."""
    ranks = []
    for rank in range(2):
        data = build(image_size=96, rect=True, val_batch_size=2)
        data.trainer = fake_trainer(world_size=2, global_rank=rank)
        loader = data.val_dataloader()
        ranks.append([key.size for key in loader.sampler])
        num_images(loader)  # the images of a batch fit together
    assert ranks == [[(96, 96), (96, 96), (96, 64)], [(96, 96), (96, 96)]]


def test_batches_of_evaluation_have_no_part_in_training(build: Build) -> None:
    """The input size belongs to a batch of training, whatever the batch size of evaluation is."""
    data = build({"multi_scale": 0.5}, image_size=128, batch_size=2, val_batch_size=5)
    loader = data.train_dataloader()
    keys = [key for _ in range(8) for key in loader.sampler]
    batches = [{key.size for key in keys[n : n + 2]} for n in range(0, len(keys), 2)]
    assert {len(sizes) for sizes in batches} == {1}
    assert len({size for sizes in batches for size in sizes}) == 3
    assert [first != second for first, second in pairwise(batches)].count(True) > len(batches) / 3


def test_a_loader_that_was_resumed_leaves_the_next_one_alone(build: Build) -> None:
    data = build()
    data.load_state_dict({"epoch": 4, "samples": 3, "step_batch": 3})
    assert [(key.epoch, len(keys)) for keys in (list(data.train_dataloader().sampler),) for key in keys[:1]] == [(4, 5)]
    assert [(key.epoch, len(keys)) for keys in (list(data.train_dataloader().sampler),) for key in keys[:1]] == [(0, 8)]


@pytest.mark.parametrize(
    ("transform", "size"),
    [({"Crop": {"x_max": 96, "y_max": 96}}, "64 x 64"), ({"Resize": {"height": 64, "width": 64}}, "192")],
)
def test_transforms_are_tried_on_the_smallest_and_the_largest_size(build: Build, transform: Settings, size: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.transforms.*{size}"):
        build({"multi_scale": 0.5}, image_size=128, transforms=[transform])


@pytest.mark.parametrize(("world_size", "num_nodes", "copies"), [(1, 1, 1), (2, 1, 2), (4, 2, 2), (2, 2, 1)])
def test_every_process_of_a_machine_needs_memory_for_its_cache(
    build: Build, monkeypatch: pytest.MonkeyPatch, world_size: int, num_nodes: int, copies: int
) -> None:
    data = build(cache="ram")
    data.trainer = fake_trainer(world_size=world_size, num_nodes=num_nodes)
    need = int(data._ram_cache.offsets[-1])
    monkeypatch.setattr(cache_module, "available_memory", lambda: (copies * need - 1) / cache_module.MAX_MEMORY_SHARE)
    with pytest.raises(ValueError, match=rf"for 8 images{f' x {copies} processes' if copies > 1 else ''}, but"):
        data.train_dataloader()
    monkeypatch.setattr(cache_module, "available_memory", lambda: (copies * need + 1) / cache_module.MAX_MEMORY_SHARE)
    assert num_images(data.train_dataloader()) > 0


@pytest.mark.parametrize(("is_last", "state"), [(False, (2, 12)), (True, (3, 0))])
def test_the_position_counts_the_samples_of_all_processes(build: Build, is_last: bool, state: tuple[int, int]) -> None:
    """In the third epoch, after two batches of three images in each of two processes."""
    data = build()
    batches = SimpleNamespace(is_last_batch=is_last, current=SimpleNamespace(processed=2, ready=3))
    epochs = SimpleNamespace(current=SimpleNamespace(started=3))
    fit_loop = SimpleNamespace(epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=batches))
    data.trainer = fake_trainer(world_size=2, fit_loop=fit_loop)
    assert data.state_dict() == {"epoch": state[0], "samples": state[1], "step_batch": 6}


def test_a_doubtful_set_is_warned_of_once(build: Build, edit_json: Callable) -> None:
    """Reading the file warns of boxes that stick out. The check of the annotations finds them, too, and repeated boxes."""

    def spoil(content: Settings) -> None:
        content["annotations"][0]["bbox"][0] = -5
        content["annotations"].append(content["annotations"][1] | {"id": 5})

    edit_json("train", spoil)
    with pytest.warns(UserWarning, match="look at your data") as caught:
        build()
    texts = [str(warning.message) for warning in caught]
    assert sum("out of the image" in text for text in texts) == 1
    assert sum("look at your data" in text and "box repeats" in text for text in texts) == 1


def test_tiny_objects_are_judged_at_the_size_of_the_input(build: Build) -> None:
    """At 16 pixels most objects are smaller than 8 x 8; at 64 they are not."""
    with pytest.warns(UserWarning, match=r"smaller than 8 x 8 pixels of the network input; a larger data\.image_size"):
        build(image_size=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"(?s).*smaller than 8 x 8")
        build()


def test_caches_fit_an_oblong_input(build: Build) -> None:
    """The memory cache scales its images when it is filled, the others when an image is read."""
    epochs = [targets(build(image_size=(32, 96), cache=cache)) for cache in ("none", "recent", "ram")]
    assert epochs[0] == epochs[1] == epochs[2]


def targets(data: CocoDataModule) -> list[tuple[int, int, list[list[float]]]]:
    """Return image id, sum of the pixels, and boxes of each sample of an epoch."""
    rows = [row for batch in data.train_dataloader() for row in zip(batch["images"], batch["targets"])]
    return [(target["image_id"], int(image.sum()), target["boxes"].tolist()) for image, target in rows]
