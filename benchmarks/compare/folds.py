"""k folds of a data set as COCO files. Images with the same content, or the same file, are in the same fold."""

import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data.annotations import Annotations
from detector.files import atomic_write
from detector.text import plural

EXIF_ORIENTATION = 0x0112
Entry = tuple[dict[str, Any], list[dict[str, Any]]]  # an image of a COCO file, with its objects


def write_folds(splits: Sequence[Annotations], number: int, seed: int, folder: Path) -> list[dict[str, str]]:
    """Write ``number`` folds of all images of ``splits`` and return the settings ``data...`` of train.py for each.

    Fold k evaluates its own images and trains on the others. Files that exist already with other content are not replaced:
    ValueError, as runs may have used them.
    """
    entries = merge(splits)
    paths = [Path(image["file_name"]) for image, _ in entries]
    folds = assign_folds([content_hash(path) for path in paths], number, seed)
    root = Path(os.path.commonpath([path.parent for path in paths]))
    categories = splits[0].ground_truth()["categories"]
    settings = []
    for fold in range(number):
        here, there = folder / f"train_{fold}.json", folder / f"val_{fold}.json"
        for file, wanted in ((here, False), (there, True)):
            chosen = [entry for entry, of in zip(entries, folds) if (of == fold) == wanted]
            _write(file, {"images": [], "annotations": [], "categories": categories}, chosen, root)
        files = {"train_annotations": here, "val_annotations": there, "train_images": root, "val_images": root}
        values = {"data.root": folder.resolve(), **{f"data.{key}": file.resolve() for key, file in files.items()}}
        settings.append({key: str(value) for key, value in values.items()} | dict.fromkeys(TEST_SETTINGS, "null"))
    return settings


TEST_SETTINGS = ("data.test_annotations", "data.test_images")


def merge(splits: Sequence[Annotations]) -> list[Entry]:
    """Return the images of all splits with their objects, numbered anew; file names are absolute paths.

    A file that several splits list is one image. Raises ValueError if they list other objects for it.
    """
    merged: dict[Path, Entry] = {}
    for annotations in splits:
        content = annotations.ground_truth()
        objects = defaultdict(list)
        for entry in content["annotations"]:
            objects[entry["image_id"]].append(entry)
        for index, image in enumerate(content["images"]):
            path = annotations.image_path(index).resolve()
            _check_upright(annotations, path)
            entry = image | {"file_name": str(path)}, objects[image["id"]]
            if path in merged and _boxes(merged[path]) != _boxes(entry):
                raise ValueError(f"{path}: two splits list other objects for it; folds need one list")
            merged.setdefault(path, entry)
    entries = [merged[path] for path in sorted(merged)]
    ids = iter(range(1, 1 + sum(len(objects) for _, objects in entries)))
    return [
        (image | {"id": number}, [entry | {"id": next(ids), "image_id": number} for entry in objects])
        for number, (image, objects) in enumerate(entries, start=1)
    ]


def _boxes(entry: Entry) -> list[Any]:
    return sorted([*each["bbox"], each["category_id"], each["iscrowd"]] for each in entry[1])


def _check_upright(annotations: Annotations, path: Path) -> None:
    """Raise ValueError for an image whose EXIF rotation a COCO file cannot express."""
    if annotations.upright:
        with Image.open(path) as image:
            if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
                raise ValueError(f"{path} is rotated by its EXIF data, which folds cannot keep; save it upright first")


def content_hash(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assign_folds(groups: Sequence[str], number: int, seed: int) -> list[int]:
    """Return the fold of each image; images of one group are in the same fold. Folds have about as many images.

    Raises ValueError if there are fewer groups than folds.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    if len(members) < number:
        raise ValueError(f"folds: {number} folds of {plural(len(members), 'different image')}; give fewer folds")
    order = sorted(members)  # the same for any order of the images
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))
    folds, sizes = [0] * len(groups), [0] * number
    for group in order:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[group])
        for index in members[group]:
            folds[index] = fold
    return folds


def _write(file: Path, content: dict[str, Any], entries: Iterable[Entry], root: Path) -> None:
    for image, objects in entries:
        content["images"].append(image | {"file_name": Path(image["file_name"]).relative_to(root).as_posix()})
        content["annotations"] += objects
    text = json.dumps(content)
    if file.exists() and file.read_text() != text:
        changed = "other images, objects, folds or fold_seed"
        raise ValueError(f"{file}: the folds have changed since it was written ({changed}); give another out")
    if not file.exists():
        with atomic_write(file) as path:
            path.write_text(text)
