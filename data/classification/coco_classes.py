"""Reads COCO files as sets of labeled images: the class of an image is that of its annotations."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from data.classification.class_splits import (
    TRAIN,
    VAL,
    ClassSplits,
    Parts,
    SplitBuilder,
    check_known_classes,
    shorten,
)
from data.classification.index import ImageIndex, IndexBuilder
from data.coco import check_files_exist, check_root, indices_of_images, look_up, read_categories
from data.coco_entries import Entries
from data.coco_json import load_coco_json
from data.faults import Faults
from data.join import check_same_classes
from data.remarks import Remark, log_remarks
from data.splits import Paths, as_lists, check_paths
from detector.text import decode_name, encode_name, plural

Sources = tuple[Paths, Paths]  # annotation files and image folders


@dataclass(frozen=True)
class LabeledFile:
    """The labeled images of a COCO annotation file."""

    name: str  # of the annotation file
    folder: str  # of the images, relative to data.root
    category_ids: list[int]  # ascending
    class_names: list[str]  # in the same order
    file_names: list[str]
    labels: np.ndarray  # (I,) int64


def read_coco_classes(root: Path, train: Sources, val: Sources | None, val_share: float) -> ClassSplits:
    """Read annotation files whose images have one class each: files of classification, or of objects of one class an image.

    Boxes are not needed. Images without annotations, or with annotations of several classes, are left out, with a warning
    that counts them. All listed categories are classes, by ascending id. Without ``val``, ``val_share`` of the images is
    held out, by a hash of the file name.
    """
    check_root(root, is_coco=False)
    files = {TRAIN: _read_files(root, TRAIN, train), **({VAL: _read_files(root, VAL, val)} if val else {})}
    first, *others = [file for split in files.values() for file in split]
    for other in others:
        check_same_classes(first, other)
    builder = SplitBuilder(IndexBuilder(root), IndexBuilder(root), 0 if val else val_share)
    for label, parts in _parts_of_classes(files[TRAIN]):
        builder.add(label, parts, [decode_name(folder).replace(os.sep, "/") for folder, _ in parts])
    train_index, train_source = builder.train.build(), " + ".join(file.name for file in files[TRAIN])
    _warn_of_unused_classes(first.class_names, train_index)
    if val:
        val_index, val_source = _read_val(root, files[VAL], first.class_names, train_index)
    else:
        val_index, val_source = builder.val.build(), builder.source(train_source)
    sources = {TRAIN: train_source, VAL: val_source}
    splits = {TRAIN: train_index, VAL: val_index}
    return ClassSplits(first.class_names, first.category_ids, splits, sources, is_held_out=val is None)


def _read_files(root: Path, split: str, sources: Sources) -> list[LabeledFile]:
    names, folders = as_lists(split, *sources)
    check_paths(root, split, names, folders)
    folders = folders * len(names) if len(folders) == 1 else folders
    return [_read_file(root, name, folder) for name, folder in zip(names, folders)]


def _read_file(root: Path, name: str, folder: str) -> LabeledFile:
    path = root / name
    content, faults = load_coco_json(path), Faults(str(path))
    category_ids, class_names = read_categories(Entries("category", "categories", content.categories, faults))
    images = Entries("image", "images", content.images, faults)
    image_ids, file_names = images.ids(), images.values("file_name")
    images.check_unique(image_ids)
    images.add_fault(
        [n for n, file in enumerate(file_names) if not isinstance(file, str) or not file],
        lambda n: f"has the file_name {file_names[n]!r}; expected a path below the images' folder",
    )
    if not file_names:
        faults.add("lists no images; expected at least one entry under 'images'")
    faults.raise_if_any()
    annotations = Entries("annotation", "annotations", content.annotations, faults)
    indices = indices_of_images(annotations, image_ids)
    categories = annotations.whole_numbers("category_id", fallback=category_ids[0])
    labels, unknown = look_up(categories, np.array(category_ids))
    annotations.add_fault(unknown, lambda n: f"refers to category_id {categories[n]}; listed are {category_ids}")
    used, image_labels, remarks = _image_labels(indices, labels, file_names)
    file_names = [file_names[n] for n in used.tolist()]
    check_files_exist(file_names, root / folder, faults)
    faults.raise_if_any()
    log_remarks(str(path), remarks)
    return LabeledFile(str(path), folder, category_ids, class_names, file_names, image_labels)


def _image_labels(
    image_indices: np.ndarray, labels: np.ndarray, file_names: list[str]
) -> tuple[np.ndarray, np.ndarray, list[Remark]]:
    """Return the indices of the images with one class, their labels, and remarks on the others."""
    lowest = np.full(len(file_names), np.iinfo(np.int64).max)
    highest = np.full(len(file_names), -1)
    np.minimum.at(lowest, image_indices, labels)
    np.maximum.at(highest, image_indices, labels)
    remarks = []
    for mask, text in (
        (highest > lowest, "left out: annotations of several classes, where a classifier needs one class an image"),
        (highest < 0, "left out: no annotation, so no class"),
    ):
        if left_out := np.flatnonzero(mask).tolist():
            examples = tuple(file_names[n] for n in left_out[:4])
            remarks.append(Remark("warning", f"{plural(len(left_out), 'image')} {text}", examples))
    used = np.flatnonzero(lowest == highest)
    return used, lowest[used], remarks


def _parts_of_classes(files: list[LabeledFile]) -> Iterator[tuple[int, Parts]]:
    """Yield each label that has images, and its images by folder."""
    for label in range(len(files[0].class_names)):
        names_by_folder: dict[bytes, list[bytes]] = {}
        for file in files:
            for n in np.flatnonzero(file.labels == label).tolist():
                folder, name = os.path.split(os.path.join(file.folder, file.file_names[n]))
                names_by_folder.setdefault(encode_name(folder), []).append(encode_name(name))
        if names_by_folder:
            yield label, list(names_by_folder.items())


def _read_val(root: Path, files: list[LabeledFile], class_names: list[str], train: ImageIndex) -> tuple[ImageIndex, str]:
    builder, source = IndexBuilder(root), " + ".join(file.name for file in files)
    for label, parts in _parts_of_classes(files):
        for folder, names in parts:
            builder.add(folder, label, names)
    val = builder.build()
    learned = [class_names[n] for n in np.flatnonzero(train.counts(len(class_names))).tolist()]
    measured = [class_names[n] for n in np.flatnonzero(val.counts(len(class_names))).tolist()]
    check_known_classes(measured, learned, source)
    return val, source


def _warn_of_unused_classes(class_names: list[str], train: ImageIndex) -> None:
    unused = [class_names[n] for n in np.flatnonzero(train.counts(len(class_names)) == 0).tolist()]
    if unused and len(train):
        text = plural(len(unused), "category has", "categories have")
        rank_zero_warn(f"train: {text} no images, and will never be learned: {shorten(unused)}")
