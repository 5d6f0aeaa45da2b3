"""``python -m data tile``: cut the images of a data set into tiles, as a data set in COCO format that trains directly."""

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from data.annotations import Annotations
from data.images import read_image
from data.reader import BadImages
from data.tiles import objects_in
from detector.arguments import shown
from detector.batch import Tile, xyxy_to_xywh
from detector.files import atomic_write
from detector.imaging.read import BadImageError
from detector.imaging.sixteen_bits import FULL_RANGE
from detector.imaging.tiles import Tiling, cut
from detector.text import plural

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")  # their tiles are JPEG files, too; others become PNG
JPEG_QUALITY = 95
REPORT = "tiles.txt"
CONFIG = "tiles.yaml"  # the section ``data`` for train.py
INPUT_MULTIPLE = 32  # the sides of a network input are multiples of it, those of a tile need not be


@dataclass
class TileSplit:
    """The tiles of a split as COCO entries, and counts of what was written and what was left out."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)  # a message for each image that cannot be used

    def count(self, crowds: np.ndarray, is_read: np.ndarray, inside_image: np.ndarray, in_some_tile: np.ndarray) -> None:
        """Count the objects; the arrays have a bool for each object of the split."""
        objects = is_read & ~crowds
        for name, mask in {
            "objects": objects,
            "crowds": is_read & crowds,
            "skipped": ~is_read & ~crowds,
            "skipped crowds": ~is_read & crowds,
            "no area": objects & ~inside_image,
            "lost": objects & inside_image & ~in_some_tile,
        }.items():
            self.counts[name] = int(mask.sum())

    def report(self, min_visible: float) -> str:
        """Return the counts in words, a line for each."""
        c = self.counts
        lines = [
            f"{plural(c['images'], 'image')} -> {plural(len(self.images), 'tile')}, {c['empty']} of them without objects",
            f"in tiles: {c['objects'] - c['lost'] - c['no area']} of {plural(c['objects'], 'object')}, as "
            f"{plural(c['boxes'], 'box', 'boxes')}, {c['clipped']} of them cut by an edge",
            f"{plural(c['parts'], 'part')} of objects below a visible share of {min_visible} became crowds, which neither "
            "training nor evaluation counts",
        ]
        if len(self.images) == c["images"] - len(self.skipped):
            lines.append("every image fits into one tile and stays whole; a smaller tile cuts them")
        if c["lost"]:
            text = "is lost: it is in no tile with this share", "are lost: they are in no tile with this share"
            lines.append(f"{plural(c['lost'], f'object {text[0]}', f'objects {text[1]}')}; larger tiles keep more")
        if c["no area"]:
            lines.append(f"{plural(c['no area'], 'box', 'boxes')} without area inside of their image left out")
        if c["crowds"]:
            subject = plural(c["crowds"], "crowd stays a crowd", "crowds stay crowds")
            lines.append(f"{subject}, as {plural(c['crowd boxes'], 'box', 'boxes')}")
        if self.skipped:
            subject = plural(len(self.skipped), "image cannot be used and is", "images cannot be used and are")
            crowds = f" and {plural(c['skipped crowds'], 'crowd')}" if c["skipped crowds"] else ""
            lines.append(f"{subject} left out, with {plural(c['skipped'], 'object')}{crowds}:")
            lines += [f"  {message}" for message in self.skipped]
        return "\n".join(f"  {line}" for line in lines)


def cut_data_set(
    splits: dict[str, Annotations],
    tiling: Tiling,
    out: Path,
    min_visible: float = 0.5,
    on_bad_image: BadImages = "raise",
) -> str:
    """Cut all ``splits`` into tiles below the folder ``out``, and return a report.

    An object is kept in each tile that shows at least the share ``min_visible`` of its box, clipped to the tile. Smaller
    parts become crowds (``iscrowd``). Writes images into ``out/<split>/``, ``out/annotations/<split>.json``, ``tiles.txt``
    with the report, and ``tiles.yaml`` with the section ``data`` of a configuration. Raises ValueError for wrong values, and
    for a folder that has files. An image that cannot be used is a BadImageError, and nothing is left in ``out``; with
    ``on_bad_image`` "skip" it is left out, and the report names it. A split without any other image is a ValueError.
    """
    check_cut(out, min_visible)
    try:
        return _cut_all(splits, tiling, out, min_visible, on_bad_image)
    except BaseException:  # also Ctrl-C: a second attempt finds an empty folder
        for name in (*splits, "annotations"):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (REPORT, CONFIG):
            (out / name).unlink(missing_ok=True)
        raise


def _cut_all(splits: dict[str, Annotations], tiling: Tiling, out: Path, min_visible: float, on_bad_image: BadImages) -> str:
    input_size = [math.ceil(side / INPUT_MULTIPLE) * INPUT_MULTIPLE for side in tiling.size]
    lines: list[str] = []
    data: dict[str, Any] = {"root": str(out), "image_size": input_size}
    # Without val, training would hold out tiles of the images that it sees. With it, a share in the user's file is refused.
    data["val_split"] = None if "val" in splits else 0
    for split, annotations in splits.items():
        tiles = _cut_split(annotations, tiling, out / split, min_visible, on_bad_image)
        categories = [{"id": i, "name": name} for i, name in zip(annotations.category_ids, annotations.class_names)]
        info = {"description": f"tiles of {annotations.name}, {tiling.size[0]} x {tiling.size[1]} px (height x width)"}
        content = {"info": info, "images": tiles.images, "annotations": tiles.annotations, "categories": categories}
        with atomic_write(out / "annotations" / f"{split}.json") as unfinished:
            unfinished.write_text(json.dumps(content), encoding="utf-8")
        data |= {f"{split}_annotations": f"annotations/{split}.json", f"{split}_images": split}
        if annotations.sixteen_bit_range != FULL_RANGE:  # tiles have 8 bits; checkpoints need it for the images themselves
            data["sixteen_bit_range"] = list(annotations.sixteen_bit_range)
        held_out = "" if annotations.held_out is None else f" held out of train, data.val_split {annotations.held_out:.3g}"
        lines += [f"{split}:{held_out}", tiles.report(min_visible)]
    (out / REPORT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / CONFIG).write_text(yaml.safe_dump({"data": data}, sort_keys=False), encoding="utf-8")
    return "\n".join(lines)


def check_cut(out: Path, min_visible: float) -> None:
    """Raise ValueError for a wrong ``min_visible``, and for a folder ``out`` that has files."""
    if isinstance(min_visible, bool) or not isinstance(min_visible, int | float) or not 0 < min_visible <= 1:
        text = "expected a share above 0, up to 1 (only whole objects): 0.5 is usual"
        raise ValueError(f"--min_visible is {shown(min_visible)}; {text}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} already exists and has files; give a new folder")


def _cut_split(
    annotations: Annotations, tiling: Tiling, folder: Path, min_visible: float, on_bad_image: BadImages
) -> TileSplit:
    split = TileSplit(counts=Counter(images=len(annotations)))
    folder.mkdir(parents=True)
    in_some_tile = np.zeros(len(annotations.ids), dtype=bool)
    inside_image = np.zeros(len(annotations.ids), dtype=bool)
    is_read = np.ones(len(annotations.ids), dtype=bool)
    for index in range(len(annotations)):
        path, size = annotations.image_path(index), annotations.size(index)
        try:
            image = read_image(path, size, annotations.upright, sixteen_bit_range=annotations.sixteen_bit_range)
        except BadImageError as error:
            if on_bad_image == "raise":
                raise
            split.skipped.append(str(error))
            is_read[annotations.object_slice(index)] = False
            continue
        for tile in tiling.tiles(size):
            name = _tile_name(annotations, index, tile)
            _write_image(folder / name, cut(image, tile))
            rows, kept = _add_tile(split, annotations, index, tile, name, min_visible)
            inside_image[rows], in_some_tile[rows[kept]] = True, True
    if not split.images:
        reason = f", e.g. {split.skipped[0]}" if split.skipped else ""
        raise ValueError(f"{annotations.name}: none of {plural(len(annotations), 'image')} can be used{reason}")
    split.count(annotations.crowds, is_read, inside_image, in_some_tile)
    return split


def _add_tile(
    split: TileSplit, annotations: Annotations, index: int, tile: Tile, name: str, min_visible: float
) -> tuple[np.ndarray, np.ndarray]:
    """Add the entries of a tile; return the rows of the objects in it, and which of them are kept as objects."""
    image_id = len(split.images) + 1
    source = {"source": annotations.file_name(index), "tile": [tile.x, tile.y, tile.width, tile.height]}
    split.images.append({"id": image_id, "file_name": name, "height": tile.height, "width": tile.width} | source)
    rows, boxes, visible = objects_in(annotations, index, tile)
    was_crowd = annotations.crowds[rows]
    kept = (visible >= min_visible - 1e-9) & ~was_crowd
    for row, bbox, share, is_object in zip(rows, xyxy_to_xywh(boxes).tolist(), visible.tolist(), kept.tolist()):
        entry = {"id": len(split.annotations) + 1, "image_id": image_id, "iscrowd": int(not is_object), "bbox": bbox}
        category_id = annotations.category_ids[annotations.labels[row]]
        split.annotations.append(entry | {"category_id": category_id, "area": float(annotations.areas[row]) * share})
    split.counts["boxes"] += int(kept.sum())
    split.counts["clipped"] += int((kept & (visible < 1 - 1e-9)).sum())
    split.counts["parts"] += int((~kept & ~was_crowd).sum())
    split.counts["crowd boxes"] += int(was_crowd.sum())
    split.counts["empty"] += int(not kept.any())
    return rows, kept


def _tile_name(annotations: Annotations, index: int, tile: Tile) -> str:
    """Return a file name that no other tile has, in ASCII: the number and the name of the image, and the tile's corner."""
    path = annotations.image_path(index)
    stem = path.stem if path.stem.isascii() and len(path.stem) < 100 else hashlib.sha1(os.fsencode(path)).hexdigest()[:8]
    suffix = ".jpg" if path.suffix.lower() in JPEG_SUFFIXES else ".png"
    return f"{index + 1:06d}_{stem}_{tile.x}_{tile.y}{suffix}"


def _write_image(path: Path, image: np.ndarray) -> None:
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    path.write_bytes(content.tobytes())
