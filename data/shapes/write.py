"""Writes the embedded data set: drawn images of shapes with annotations in COCO format."""

import json
import logging
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import cv2

from data.shapes.draw import CLASSES, SPLITS, draw_image
from detector.batch import xyxy_to_xywh

SHAPES = Path("datasets/shapes")  # folder of the set, relative to the folder where training starts
VERSION = 3  # raise it whenever images or annotations change: sets of older versions are then drawn again
MARKER = "drawn_by_data_shapes.json"  # in the set's folder: the arguments and the version that it was drawn with
STALE_SECONDS = 86400  # a temporary folder of this age is left from a process that was killed
JPEG_QUALITY = 90

logger = logging.getLogger(__name__)


def write_split(folder: Path, split: str, num_images: int, seed: int) -> None:
    """Draw ``num_images`` images into ``folder/split/`` and describe them in ``folder/annotations/split.json``."""
    (folder / split).mkdir()
    images, annotations = [], []
    for index in range(num_images):
        drawing = draw_image(seed, split, index)
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


def is_complete(root: Path, recipe: dict[str, int]) -> bool:
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


def move_into_place(drawn: Path, root: Path, aside: Path, recipe: dict[str, int]) -> None:
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
    if num_train < 1 or num_val < 1 or seed < 0:
        raise ValueError(
            f"num_train={num_train}, num_val={num_val}, seed={seed}: expected at least 1, at least 1 and at least 0"
        )
    recipe = {"version": VERSION, "num_train": num_train, "num_val": num_val, "seed": seed}
    target = Path(root).resolve()  # a symbolic link stays; the folder it points to is filled
    if is_complete(target, recipe):
        return root
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}-drawing-"
    remove_stale(target.parent, prefix)
    replacing = ", in place of an older set" if (target / MARKER).is_file() else ""
    logger.info("drawing %d images of shapes into %s%s", num_train + num_val, root, replacing)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as temporary:
        drawn = Path(temporary, "drawn")
        drawn.mkdir()
        for split, num_images in zip(SPLITS, (num_train, num_val)):
            write_split(drawn, split, num_images, seed)
        (drawn / MARKER).write_text(json.dumps(recipe))
        move_into_place(drawn, target, Path(temporary, "old"), recipe)
    return root
