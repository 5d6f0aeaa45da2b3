"""COCO annotation files in, checked flat arrays out. Every check on the user's annotation files is here."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

COCO_DOWNLOAD = """\
    mkdir -p {root} && cd {root}
    for file in zips/train2017.zip zips/val2017.zip annotations/annotations_trainval2017.zip; do
        wget http://images.cocodataset.org/$file && unzip -q $(basename $file) && rm $(basename $file)
    done"""


@dataclass(frozen=True)
class Annotations:
    """A checked annotation file as flat arrays: I images in the file's order, and N objects sorted by image.

    The objects of image i are those from ``offsets[i]`` to ``offsets[i + 1]``. Arrays are shared between forked workers;
    lists of dicts would be copied bit by bit as the workers touch them.
    """

    path: Path
    folder: Path  # of the pictures
    image_ids: np.ndarray  # (I,) int64
    sizes: np.ndarray  # (I, 2) int64, height and width
    file_names: np.ndarray  # (I,) bytes, UTF-8
    offsets: np.ndarray  # (I + 1,) int64
    ids: np.ndarray  # (N,) int64
    bboxes: np.ndarray  # (N, 4) float64, x y width height as in the file, so possibly sticking out of the picture
    areas: np.ndarray  # (N,) float64
    crowds: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) int64, 0..C-1
    category_ids: list[int]  # C of them, ascending
    class_names: list[str]  # in the same order

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_path(self, index: int) -> Path:
        return self.folder / self.file_names[index].decode()

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (N, 4) float32, x1 y1 x2 y2 clipped to the picture, and labels (N,) int64, to train on.

        Crowds are left out, and so is what has no area inside the picture.
        """
        own = slice(self.offsets[index], self.offsets[index + 1])
        single = ~self.crowds[own]
        height, width = self.sizes[index]
        boxes = clip_bboxes(self.bboxes[own][single], height, width)
        solid = _have_area(boxes)
        return boxes[solid].astype(np.float32), self.labels[own][single][solid]

    def as_single_class(self) -> "Annotations":
        """Return the same with all objects in one class, ``object``, under the smallest category id."""
        return replace(self, labels=np.zeros_like(self.labels), category_ids=self.category_ids[:1], class_names=["object"])

    def ground_truth(self) -> dict[str, Any]:
        """Return what pycocotools needs for box evaluation: a dict in COCO format, with original ids and crowds.

        Boxes are as in the file, not clipped, and those without area are among them: the numbers are those of an evaluation
        outside of this project.
        """
        images = [
            {"id": id_, "file_name": name.decode(), "height": height, "width": width}
            for id_, name, (height, width) in zip(self.image_ids.tolist(), self.file_names, self.sizes.tolist())
        ]
        category_ids = np.array(self.category_ids)[self.labels]
        columns = (self.ids, np.repeat(self.image_ids, np.diff(self.offsets)), category_ids, self.bboxes, self.areas)
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        rows = zip(*(column.tolist() for column in (*columns, self.crowds.astype(int))))
        categories = [{"id": id_, "name": name} for id_, name in zip(self.category_ids, self.class_names)]
        return {"images": images, "annotations": [dict(zip(keys, row)) for row in rows], "categories": categories}


def clip_bboxes(bboxes: np.ndarray, height: np.ndarray | int, width: np.ndarray | int) -> np.ndarray:
    """Return x y width height (N, 4) as x1 y1 x2 y2, clipped to pictures of that height and width, one or N of them."""
    corners = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    limit = np.stack(np.broadcast_arrays(width, height, width, height), axis=-1)
    return corners.clip(0, limit)


def _have_area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] > boxes[:, :2]).all(axis=1)


def read_annotations(path: Path, folder: Path) -> Annotations:
    """Read and check the COCO annotation file ``path`` whose pictures are in ``folder``.

    Raises ValueError naming file, entry and remedy for whatever would spoil training or evaluation. Boxes without area
    are left out and boxes that stick out of their picture clipped for training; both are counted and reported.
    """
    content = _load(path)
    category_ids, class_names = _read_categories(content["categories"], path)
    image_ids, sizes, names = _read_images(content["images"], path)
    _check_files_exist(names, folder, path)
    objects = _read_objects(content["annotations"], path, image_ids, category_ids)
    positions, bboxes = objects["position"], objects["bbox"]

    clipped = clip_bboxes(bboxes, *sizes[positions].T)
    solid = _have_area(clipped)
    outside = (bboxes[:, :2] < 0).any(axis=1) | (bboxes[:, :2] + bboxes[:, 2:] > sizes[positions][:, ::-1]).any(axis=1)
    _warn(
        path,
        objects["id"][~solid],
        "have no area inside their picture; dropped from training, and missed in evaluation, as by pycocotools",
    )
    _warn(path, objects["id"][solid & outside], "stick out of their picture; clipped to it for training")

    ids = objects["id"]
    if (ids <= 0).any():
        # pycocotools marks a found object by its annotation id and takes 0 for not found.
        ids = np.arange(1, len(ids) + 1)
        rank_zero_warn(f"{path}: pycocotools never counts annotation id 0 as found; numbered anew from 1 for evaluation")
    order = np.argsort(positions, kind="stable")
    annotations = Annotations(
        path=path,
        folder=folder,
        image_ids=image_ids,
        sizes=sizes,
        file_names=np.array([name.encode() for name in names]),
        offsets=np.searchsorted(positions[order], np.arange(len(image_ids) + 1)),
        ids=ids[order],
        bboxes=bboxes[order],
        areas=objects["area"][order],
        crowds=objects["crowd"][order],
        labels=np.searchsorted(category_ids, objects["category"][order]),
        category_ids=category_ids,
        class_names=class_names,
    )
    _report(annotations)
    return annotations


def check_root(root: Path, is_coco: bool) -> None:
    """Raise a ValueError if the data set's folder is not there; for COCO itself it says how to get it."""
    if root.is_dir():
        return
    remedy = "set data.root to the folder of a COCO-format data set"
    if is_coco:
        remedy += ", or get COCO 2017 (about 20 GB):\n" + COCO_DOWNLOAD.format(root=root)
    raise ValueError(f"data.root: there is no folder {root} (looked from {Path.cwd()}); {remedy}")


def check_same_classes(train: Annotations, other: Annotations) -> None:
    """Raise a ValueError that shows the difference unless both files list the same categories, by id and name."""
    ours = dict(zip(train.category_ids, train.class_names))
    theirs = dict(zip(other.category_ids, other.class_names))
    differing = [id_ for id_ in sorted(ours.keys() | theirs.keys()) if ours.get(id_) != theirs.get(id_)]
    if differing:
        lines = [f"    id {id_}: {ours.get(id_, '(none)')} | {theirs.get(id_, '(none)')}" for id_ in differing[:20]]
        raise ValueError(
            f"{train.path} and {other.path} list different categories, so labels would be mixed up; give both the same "
            f"list, unused ones included. {len(differing)} differ (first file | second file):\n" + "\n".join(lines)
        )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no annotation file {path} (looked from {Path.cwd()}); correct data.root or its name")
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not JSON ({error}); expected a COCO annotation file") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            state = "misses the key" if entries is None else "has no list of objects under the key"
            raise ValueError(f"{path}: is not a COCO annotation file: it {state} {key!r}")
    return content


def _read_categories(entries: list[dict[str, Any]], path: Path) -> tuple[list[int], list[str]]:
    names = {}
    for entry in entries:
        id_, name = _whole(entry, "id", path, "category"), entry.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{path}: category {id_} has the name {name!r}; expected text")
        if id_ in names:
            raise ValueError(f"{path}: category id {id_} is used twice, for {names[id_]!r} and {name!r}; keep one")
        names[id_] = name
    if not names:
        raise ValueError(f"{path}: lists no categories; add every class under 'categories'")
    if repeated := _repeated(names.values()):
        raise ValueError(f"{path}: the category name {repeated[0]!r} is used for more than one id; rename or merge them")
    ids = sorted(names)
    return ids, [names[id_] for id_ in ids]


def _read_images(entries: list[dict[str, Any]], path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return ids (I,), sizes (I, 2) height and width, and file names."""
    if not entries:
        raise ValueError(f"{path}: lists no images; expected at least one entry under 'images'")
    ids = [_whole(entry, "id", path, "image") for entry in entries]
    if repeated := _repeated(ids):
        raise ValueError(f"{path}: {len(repeated)} image ids are used twice, e.g. {repeated[:3]}; make them unique")
    sizes = [(_whole(entry, "height", path, "image"), _whole(entry, "width", path, "image")) for entry in entries]
    for id_, size in zip(ids, sizes):
        if min(size) < 1:
            raise ValueError(f"{path}: image {id_} has the height and width {size}; expected whole numbers above 0")
    names = [entry.get("file_name") for entry in entries]
    for id_, name in zip(ids, names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"{path}: image {id_} has the file_name {name!r}; expected a path below the pictures' folder")
    return np.array(ids), np.array(sizes), names


def _read_objects(
    entries: list[dict[str, Any]], path: Path, image_ids: np.ndarray, category_ids: list[int]
) -> dict[str, np.ndarray]:
    """Return one array per property of the N annotations, in the file's order."""
    position_of, known = {id_: n for n, id_ in enumerate(image_ids.tolist())}, set(category_ids)
    rows = []
    for entry in entries:
        id_, image_id, category = (_whole(entry, key, path, "annotation") for key in ("id", "image_id", "category_id"))
        if image_id not in position_of:
            raise ValueError(f"{path}: annotation {id_} refers to image_id {image_id}, which 'images' does not list")
        if category not in known:
            raise ValueError(f"{path}: annotation {id_} refers to category_id {category}; listed are {category_ids}")
        bbox = _bbox(entry, path)
        area = _area(entry, path, default=max(bbox[2], 0.0) * max(bbox[3], 0.0))
        rows.append((id_, position_of[image_id], category, bbox, area, _crowd(entry, path)))
    kinds = [("id", "i8"), ("position", "i8"), ("category", "i8"), ("bbox", "f8", 4), ("area", "f8"), ("crowd", "?")]
    objects = np.array(rows, dtype=kinds)
    if repeated := _repeated(objects["id"].tolist()):
        raise ValueError(f"{path}: {len(repeated)} annotation ids are used twice, e.g. {repeated[:3]}; make them unique")
    return {name: objects[name] for name in objects.dtype.names}


def _whole(entry: dict[str, Any], key: str, path: Path, kind: str) -> int:
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    who = f"{kind} {entry.get('id')}" if key != "id" else f"{kind} {str(entry)[:120]}"
    raise ValueError(f"{path}: {who} has {key} {value!r}; expected a whole number")


def _bbox(entry: dict[str, Any], path: Path) -> tuple[float, ...]:
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        raise ValueError(
            f"{path}: annotation {entry['id']} has the bbox {bbox!r}; expected four finite numbers, [x, y, width, height]"
        )
    return tuple(bbox)


def _area(entry: dict[str, Any], path: Path, default: float) -> float:
    area = entry.get("area")
    if area is None:
        return default
    if not _is_number(area) or area < 0:
        raise ValueError(f"{path}: annotation {entry['id']} has the area {area!r}; expected a finite number, 0 or more")
    return area


def _crowd(entry: dict[str, Any], path: Path) -> bool:
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"{path}: annotation {entry['id']} has iscrowd {crowd!r}; expected 0 or 1")
    return bool(crowd)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _repeated(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _check_files_exist(names: list[str], folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{path}: there is no picture folder {folder}; correct data.root or the folder's name")
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:  # listing each folder once is many times faster than asking for each file
        parent, _, base = name.rpartition("/")
        if parent not in listings:
            listings[parent] = set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        if base not in listings[parent]:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(names)} pictures are not in {folder}, e.g. {', '.join(missing[:3])}; "
            "put them there, correct the folder's name, or remove them from the file"
        )


def _warn(path: Path, ids: np.ndarray, what: str) -> None:
    if len(ids):
        shown = ", ".join(map(str, ids[:5].tolist())) + (" ..." if len(ids) > 5 else "")
        rank_zero_warn(f"{path}: {len(ids)} boxes {what} (annotation ids {shown})")


def _report(annotations: Annotations) -> None:
    crowds = int(annotations.crowds.sum())
    empty = int((np.diff(annotations.offsets) == 0).sum())
    rank_zero_info(
        f"{annotations.path}: {len(annotations)} pictures, {empty} of them without objects, "
        f"{len(annotations.ids) - crowds} objects, {crowds} crowds, {len(annotations.class_names)} classes"
    )
    if len(annotations.ids) == crowds:
        rank_zero_warn(f"{annotations.path}: has no objects at all; nothing can be learnt or measured from it")
