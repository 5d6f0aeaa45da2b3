"""Write the data sets of the study of dynamic layers (docs/dynamic-study.md): not a benchmark itself.

``python -m benchmarks.dynamic_data --out datasets/dynamic`` writes five sets, each laid out as in ``configs/data/bccd.yaml``
(without a test split). The entry of every image in the annotation files has its ``source``.

    control       drawn shapes in three styles by index: as drawn, inverted and dark, blurred and gray. Style j turns class
                  l into class (l + j) mod 6, so the same outline means another class: the positive control
    joint         the sets in ``--bccd``, ``--cards`` and ``--coco128`` (class ``person`` only) and drawn shapes, 16 classes
    shapes_200    drawn shapes with 200 training images;
    shapes_800    with 800, which begin with those 200;
    shapes_3200   with 3,200, which begin with those 800. All three have the same validation images

Images are JPEG, scaled down to a longer side of at most 320 px (control: 160 px), and boxes with them. The bytes are the
same each time. ``manifest.json`` counts images, objects and dropped boxes (without area) by split and source. ``--sets``
writes only some; a set that exists stays as it is. ``--source_images 20`` takes only the first 20 images of every split and
source, for a quick look.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.common import option_parser
from benchmarks.runs import annotations_file
from data.shapes.draw import CLASSES as SHAPE_CLASSES
from data.shapes.draw import draw_image
from detector.batch import xywh_to_xyxy, xyxy_to_xywh
from detector.files import read_json
from detector.imaging.read import read_upright

SPLITS = ("train", "val")
VERSION = 1  # raise it whenever the bytes of a set change
MANIFEST = "manifest.json"  # written last: a folder with it is whole
JPEG_QUALITY = 92
CONTROL_SIDE, SIDE = 160, 320  # longest side of an image, in px
CONTROL_IMAGES, JOINT_SHAPES, SCALE_VAL = {"train": 600, "val": 300}, {"train": 800, "val": 400}, 400
SCALES = (200, 800, 3200)
SEEDS = {  # of the drawn images, by set and split
    "control": {"train": 11, "val": 12},
    "joint": {"train": 21, "val": 22},
    "scale": {"train": 31, "val": 32},
}
STYLES = ("as_drawn", "inverted_dark", "blurred_gray")
BCCD_CLASSES = ("WBC", "RBC", "Platelets")
CARD_CLASSES = ("nine", "ten", "jack", "queen", "king", "ace")


class Sample(NamedTuple):
    """An image and its objects."""

    source: str
    name: str  # of its file, without suffix
    image: np.ndarray  # (H, W, 3) uint8, BGR
    boxes: np.ndarray  # (N, 4) float64, x1 y1 x2 y2 in px
    labels: list[int]  # N indices into the classes of the set


class SplitWriter:
    """Writes the images of a split as they come, and then its annotation file."""

    def __init__(self, root: Path, split: str, max_side: int) -> None:
        self.root, self.split, self.max_side = root, split, max_side
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.counts: dict[str, dict[str, int]] = {}  # by source
        (root / split).mkdir(parents=True)

    def add(self, sample: Sample) -> None:
        """Write an image, scaled down to ``max_side``, and keep its entries. Boxes without area are dropped and counted."""
        counts = self.counts.setdefault(sample.source, {"images": 0, "objects": 0, "dropped_boxes": 0})
        image, boxes = scale_down(sample.image, sample.boxes, self.max_side)
        name, image_id = f"{sample.source}_{sample.name}.jpg", len(self.images) + 1
        height, width = image.shape[:2]
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (self.root / self.split / name).write_bytes(jpeg.tobytes())
        entry = {"id": image_id, "file_name": name, "width": width, "height": height, "source": sample.source}
        self.images.append(entry)
        counts["images"] += 1
        for (x, y, w, h), label in zip(xyxy_to_xywh(boxes).tolist(), sample.labels, strict=True):
            if w <= 0 or h <= 0:
                counts["dropped_boxes"] += 1
                continue
            object_entry = {"id": len(self.annotations) + 1, "image_id": image_id, "category_id": label + 1}
            self.annotations.append(object_entry | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
            counts["objects"] += 1

    def finish(self, class_names: list[str]) -> dict[str, dict[str, int]]:
        """Write the annotation file; return the counts by source."""
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(class_names)]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        path = annotations_file(self.root, self.split)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return self.counts


def scale_down(image: np.ndarray, boxes: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and its boxes (N, 4), scaled so that the longer side is at most ``max_side`` px."""
    height, width = image.shape[:2]
    factor = min(max_side / max(height, width), 1)
    if factor == 1:
        return image, boxes
    new_width, new_height = max(round(width * factor), 1), max(round(height * factor), 1)
    scaled = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return scaled, boxes * np.tile([new_width / width, new_height / height], 2)


def in_style(image: np.ndarray, style: int) -> np.ndarray:
    """Return the drawn image (H, W, 3) uint8 in one of STYLES."""
    if STYLES[style] == "inverted_dark":
        return (255 - image) // 2  # inverted alone can hardly be told from as drawn: both have pale colors of any hue
    if STYLES[style] == "blurred_gray":
        gray = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 2), cv2.COLOR_BGR2GRAY)
        return cv2.merge([gray] * 3)
    return image


def control_samples(split: str, limit: int | None) -> Iterator[Sample]:
    """Yield the images of the positive control."""
    for index in range(limit or CONTROL_IMAGES[split]):
        drawing, style = draw_image(SEEDS["control"][split], split, index), index % len(STYLES)
        labels = [(label + style) % len(SHAPE_CLASSES) for label in drawing.labels]
        yield Sample(STYLES[style], f"{index + 1:06d}", in_style(drawing.image, style), drawing.boxes, labels)


def shape_samples(split: str, num_images: int, seeds: dict[str, int], first_label: int = 0) -> Iterator[Sample]:
    """Yield drawn shapes; their labels start at ``first_label``."""
    for index in range(num_images):
        drawing = draw_image(seeds[split], split, index)
        labels = [first_label + label for label in drawing.labels]
        yield Sample("shapes", f"{index + 1:06d}", drawing.image, drawing.boxes, labels)


def coco_samples(
    annotations: Path, images: Path, source: str, classes: tuple[str, ...], first_label: int, limit: int | None
) -> Iterator[Sample]:
    """Yield the images of a COCO file in the order of their ids, with its objects of ``classes``; others are background."""
    content = read_json(annotations, dict, "the annotation file of a split")
    names = {category["id"]: category["name"] for category in content["categories"]}
    if missing := set(classes) - set(names.values()):
        raise ValueError(f"{annotations}: has no category {', '.join(sorted(missing))}; give the set that has it")
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        if names[entry["category_id"]] in classes:
            objects[entry["image_id"]].append(entry)
    for entry in sorted(content["images"], key=lambda image: image["id"])[:limit]:
        image = read_upright(images / entry["file_name"])
        if image.shape[:2] != (entry["height"], entry["width"]):
            raise ValueError(f"{images / entry['file_name']}: is not of the size that {annotations} gives; restore it")
        own = objects[entry["id"]]
        boxes = xywh_to_xyxy(np.array([one["bbox"] for one in own], dtype=np.float64).reshape(-1, 4))
        labels = [first_label + classes.index(names[one["category_id"]]) for one in own]
        yield Sample(source, Path(entry["file_name"]).stem, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), boxes, labels)


def joint_samples(split: str, limit: int | None, bccd: Path, cards: Path, coco128: Path) -> Iterator[Sample]:
    """Yield the images of all sources of the joint set, source after source."""
    shapes_at = len(BCCD_CLASSES) + len(CARD_CLASSES)
    yield from coco_samples(annotations_file(bccd, split), bccd / split, "bccd", BCCD_CLASSES, 0, limit)
    yield from coco_samples(annotations_file(cards, split), cards / split, "cards", CARD_CLASSES, len(BCCD_CLASSES), limit)
    yield from shape_samples(split, limit or JOINT_SHAPES[split], SEEDS["joint"], shapes_at)
    folder, person_at = f"{split}2017", shapes_at + len(SHAPE_CLASSES)
    yield from coco_samples(annotations_file(coco128, folder), coco128 / folder, "coco128", ("person",), person_at, limit)


def scale_samples(split: str, limit: int | None, num_train: int) -> Iterator[Sample]:
    """Yield drawn shapes: ``num_train`` for training, and the same images for validation whatever ``num_train`` is."""
    return shape_samples(split, limit or (num_train if split == "train" else SCALE_VAL), SEEDS["scale"])


def write_set(
    root: Path,
    samples: Callable[[str, int | None], Iterator[Sample]],
    class_names: list[str],
    max_side: int,
    limit: int | None,
) -> dict[str, Any]:
    """Write a set into ``root`` and return its manifest; if it exists already, return the manifest that it has."""
    recipe = {"version": VERSION, "source_images": limit}
    if root.exists():
        manifest = read_json(root / MANIFEST, dict, "an empty --out, so that the set is written anew")
        if {key: manifest.get(key) for key in recipe} != recipe:
            raise ValueError(f"{root}: was written by another version, or with another --source_images; remove it")
        return manifest
    unfinished = root.with_name(f".{root.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was stopped
    manifest = {**recipe, "classes": class_names}
    for split in SPLITS:
        writer = SplitWriter(unfinished, split, max_side)
        for sample in samples(split, limit):
            writer.add(sample)
        manifest[split] = writer.finish(class_names)
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    unfinished.rename(root)
    return manifest


def main() -> None:
    """Write the sets that are asked for and print their manifests."""
    scales = [f"shapes_{number}" for number in SCALES]
    defaults: dict[str, Any] = {"out": Path("datasets/dynamic"), "sets": ["control", "joint", *scales], "source_images": 0}
    defaults |= {name: Path("datasets", name) for name in ("bccd", "cards", "coco128")}
    parser = option_parser(__doc__, **defaults)
    args = parser.parse_args()
    shapes = list(SHAPE_CLASSES)
    joint = partial(joint_samples, bccd=args.bccd, cards=args.cards, coco128=args.coco128)
    sets: dict[str, tuple[Callable[[str, int | None], Iterator[Sample]], list[str], int]] = {
        "control": (control_samples, shapes, CONTROL_SIDE),
        "joint": (joint, [*BCCD_CLASSES, *CARD_CLASSES, *shapes, "person"], SIDE),
    } | {f"shapes_{number}": (partial(scale_samples, num_train=number), shapes, SIDE) for number in SCALES}
    if unknown := [name for name in args.sets if name not in sets]:
        parser.error(f"--sets {unknown[0]}: no such set; choose from {', '.join(sets)}")
    try:
        for name in args.sets:
            manifest = write_set(args.out / name, *sets[name], args.source_images or None)
            for split in SPLITS:
                counts = "; ".join(f"{source} {numbers}" for source, numbers in manifest[split].items())
                print(f"{args.out / name} {split}: {counts}", flush=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
