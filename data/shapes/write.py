"""Writes the sets of drawn shapes: two in COCO format, and folders of single shapes by class."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
from lightning.pytorch.utilities import rank_zero_info

from data.shapes.draw import CLASSES, EMBEDDED, SIMPLE, SPLITS, Style, draw_image
from data.shapes.single import KINDS, SMALLEST_SIDE, draw_single
from detector.batch import xyxy_to_xywh

SHAPES = Path("datasets/shapes")  # folder of the embedded set, relative to the folder where training starts
VERSION = 3  # raise it whenever images or annotations change: sets of older versions are then drawn again
SIMPLE_SHAPES = Path("datasets/simple_shapes")  # of `make demo`, relative to the same folder
SIMPLE_VERSION = 1  # the same for simple shapes
SINGLE_SHAPES = Path("datasets/single_shapes")
SINGLE_VERSION = 1  # the same for single shapes
MARKER = "drawn_by_data_shapes.json"  # in the set's folder: the arguments and the version that it was drawn with
STALE_SECONDS = 86400  # a temporary folder of this age is left from a process that was killed
JPEG_QUALITY = 90
PROGRESS_SECONDS = 5.0  # between progress lines while a set is drawn

Recipe = dict[str, int]  # the arguments that a set is drawn with, and the version


def counted(num_images: int, split: str) -> Iterator[int]:
    """Yield the numbers of the images of a split; log now and then how many are drawn."""
    logged = time.perf_counter()
    for index in range(num_images):
        if time.perf_counter() - logged > PROGRESS_SECONDS:
            rank_zero_info(f"drew {index} of {num_images} images of {split}")
            logged = time.perf_counter()
        yield index


def write_split(folder: Path, split: str, num_images: int, seed: int, style: Style = EMBEDDED) -> None:
    """Draw ``num_images`` images into ``folder/split/`` and describe them in ``folder/annotations/split.json``."""
    (folder / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in counted(num_images, split):
        drawing = draw_image(seed, split, index, style)
        height, width = drawing.image.shape[:2]
        name = f"{index + 1:06d}.jpg"
        _, jpeg = cv2.imencode(".jpg", drawing.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (folder / split / name).write_bytes(jpeg.tobytes())
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        for bbox, label in zip(xyxy_to_xywh(drawing.boxes).tolist(), drawing.labels):
            entry = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": label + 1, "iscrowd": 0}
            annotations.append(entry | {"bbox": bbox, "area": bbox[2] * bbox[3]})
    categories = [{"id": label + 1, "name": name, "supercategory": "shape"} for label, name in enumerate(CLASSES)]
    info = {"description": f"images of shapes, drawn by data/shapes version {VERSION} with seed {seed}"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))


def write_classes(folder: Path, split: str, num_images: int, recipe: Recipe) -> None:
    """Draw ``num_images`` single shapes into ``folder/split/<class>/``; the classes take turns."""
    kinds = KINDS[: recipe["num_classes"]]
    for kind in kinds:
        (folder / split / kind).mkdir(parents=True)
    for index in counted(num_images, split):
        kind = kinds[index % len(kinds)]
        image = draw_single(kind, recipe["seed"], split, index, recipe["image_size"])
        _, png = cv2.imencode(".png", image)
        (folder / split / kind / f"{index + 1:06d}.png").write_bytes(png.tobytes())


def is_complete(root: Path, recipe: Recipe) -> bool:
    """Return True if ``root`` holds the set that ``recipe`` describes. The marker is written last, so it stands for all."""
    try:
        return json.loads((root / MARKER).read_text()) == recipe
    except (OSError, ValueError):
        return False


def check_replaceable(root: Path) -> None:
    """Raise a ValueError if ``root`` has contents that this module has not drawn."""
    if root.exists() and not (root / MARKER).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"{root}: has other contents. The shapes need a new or empty folder, or a folder with an older set (with a "
            f"{MARKER}); give another root, or move the contents away"
        )


def move_into_place(drawn: Path, root: Path, aside: Path, recipe: Recipe) -> None:
    """Rename ``drawn`` to ``root``, and an older ``root`` to ``aside``. If another process was faster, its set stays."""
    if is_complete(root, recipe):
        return
    check_replaceable(root)  # again: another program may have filled it meanwhile
    with suppress(FileNotFoundError):
        root.rename(aside)
    try:
        drawn.rename(root)
    except OSError:
        if not is_complete(root, recipe):
            raise


def remove_stale(parent: Path, prefix: str) -> None:
    """Remove temporary folders of killed processes. Younger folders may belong to a process that is still drawing."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder)


def draw_shapes(root: Path, num_train: int = 1000, num_val: int = 200, seed: int = 0) -> Path:
    """Draw the data set into ``root`` unless the same set is already there; return ``root``.

    A set drawn with other numbers, or by another version of this module, is replaced. The set appears in one step: if the
    process is interrupted, ``root`` stays as it was, and several processes may draw at the same time. Raises ValueError if
    ``root`` has other contents, which are never touched, and for a number out of range.
    """
    check_numbers(1, num_train=num_train, num_val=num_val)
    check_numbers(0, seed=seed)
    recipe = {"version": VERSION, "num_train": num_train, "num_val": num_val, "seed": seed}
    return fill(root, recipe, lambda folder, split, num_images: write_split(folder, split, num_images, seed))


def draw_simple_shapes(root: Path, num_train: int = 640, num_val: int = 160, seed: int = 0) -> Path:
    """Draw a set of few large shapes into ``root``, which a detector learns in minutes; otherwise as ``draw_shapes``."""
    check_numbers(1, num_train=num_train, num_val=num_val)
    check_numbers(0, seed=seed)
    recipe = {"simple_version": SIMPLE_VERSION, "num_train": num_train, "num_val": num_val, "seed": seed}
    return fill(root, recipe, lambda folder, split, num_images: write_split(folder, split, num_images, seed, SIMPLE))


# The sets that are drawn if a run names their folder and they are not there
DRAWN_SETS: dict[Path, Callable[[Path], Path]] = {SHAPES: draw_shapes, SIMPLE_SHAPES: draw_simple_shapes}


def draw_singles(
    root: Path, num_train: int = 160, num_val: int = 40, num_classes: int = 4, image_size: int = 64, seed: int = 0
) -> Path:
    """Draw images of one shape each into ``root/train/<class>/`` and ``root/val/<class>/``; return ``root``.

    ``num_train`` and ``num_val`` count the images of all classes together, ``image_size`` is the side in px. A set
    with more images begins with those of a smaller one. Otherwise as ``draw_shapes``.
    """
    check_numbers(1, num_classes=num_classes)
    if num_classes > len(KINDS):
        raise ValueError(f"num_classes={num_classes}: there are only {len(KINDS)} kinds of shape ({', '.join(KINDS)})")
    check_numbers(num_classes, num_train=num_train, num_val=num_val)  # no class without images
    check_numbers(SMALLEST_SIDE, image_size=image_size)
    check_numbers(0, seed=seed)
    recipe = {"single_version": SINGLE_VERSION, "num_train": num_train, "num_val": num_val}
    recipe |= {"num_classes": num_classes, "image_size": image_size, "seed": seed}
    return fill(root, recipe, lambda folder, split, num_images: write_classes(folder, split, num_images, recipe))


def check_numbers(least: int, **numbers: int) -> None:
    """Raise a ValueError if one of the numbers is less than ``least``."""
    if min(numbers.values()) < least:
        found = ", ".join(f"{name}={number}" for name, number in numbers.items())
        raise ValueError(f"{found}: expected at least {least}")


def fill(root: Path, recipe: Recipe, write: Callable[[Path, str, int], None]) -> Path:
    """Let ``write(folder, split, num_images)`` draw both splits of the set; move it to ``root``, which is returned."""
    target = Path(root).resolve()  # a symbolic link stays; the folder it points to is filled
    if is_complete(target, recipe):
        return root
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}-drawing-"
    remove_stale(target.parent, prefix)
    num_images = [recipe[f"num_{split}"] for split in SPLITS]
    replacing = ", in place of an older set" if (target / MARKER).is_file() else ""
    rank_zero_info(f"drawing {sum(num_images)} images of shapes into {root}{replacing}")
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as temporary:
        drawn = Path(temporary, "drawn")
        drawn.mkdir()
        for split, number in zip(SPLITS, num_images):
            write(drawn, split, number)
        (drawn / MARKER).write_text(json.dumps(recipe))
        move_into_place(drawn, target, Path(temporary, "old"), recipe)
    return root
