"""Reads sets of class folders: root/train/<class>/..., and root/val/<class>/... or a share that is held out."""

import os
from contextlib import suppress
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from data.classification.class_splits import TRAIN, VAL, ClassSplits, SplitBuilder, check_known_classes, shorten
from data.classification.folder_scan import FolderScan
from data.classification.index import ImageIndex, IndexBuilder
from data.other_sets import detection_sign
from data.reader import BadImages
from data.remarks import Remark, log_remarks
from detector.files import is_hidden
from detector.text import decode_name, plural

TRAIN_NAMES, VAL_NAMES = ("train", "training"), ("val", "valid", "validation", "test", "testing", "eval", "dev")
SPLIT_NAMES = TRAIN_NAMES + VAL_NAMES
MOST_FOLDERS = 100  # that are looked into for splits


def read_class_folders(root: Path, train: str, val: str | None, val_share: float, on_bad_image: BadImages) -> ClassSplits:
    """Read the class folders of both splits; ``train`` and ``val`` are folders relative to ``root``.

    The classes are the folders directly in the training folder, in the order of their names; images at any depth belong to
    them. Without a validation folder, ``val_share`` of the images is held out, see ``split_hash.held_out``.

    Raises ValueError for folders that do not exist, and if a class of val is not in train.
    """
    train_folder = find_train_folder(root, train)
    val_folder = find_val_folder(root, val, train_folder)
    scan = FolderScan(train_folder)
    builder = SplitBuilder(IndexBuilder(train_folder), IndexBuilder(train_folder), 0 if val_folder else val_share)
    class_names: list[str] = []
    empty: list[str] = []
    for name, folder in scan.class_folders().items():
        if parts := list(scan.images(folder)):
            builder.add(len(class_names), parts, [decode_name(at).replace(os.sep, "/") for at, _ in parts])
            class_names.append(name)
        else:
            empty.append(name)
    _log_scan(scan, empty, on_bad_image)
    if val_folder is None:
        val_index, val_source = builder.val.build(), builder.source(str(train_folder))
    else:
        val_index, val_source = _read_val(val_folder, class_names, on_bad_image), str(val_folder)
    splits = {TRAIN: builder.train.build(), VAL: val_index}
    sources = {TRAIN: str(train_folder), VAL: val_source}
    return ClassSplits(class_names, list(range(len(class_names))), splits, sources, is_held_out=val_folder is None)


def find_train_folder(root: Path, train: str) -> Path:
    """Return the folder that has the class folders: ``root/train``, or ``root`` itself if it has no splits."""
    if train == TRAIN and (sign := detection_sign(root)) is not None:
        raise ValueError(
            f"data.root: {root} is a detection set, as {sign} shows: train a detector on it, with train.py. Pre-training "
            "takes a folder of images for each class, or data.train_annotations and data.train_images"
        )
    if not root.is_dir():
        kind = "is a file" if root.exists() else f"does not exist (looked from {Path.cwd()})"
        raise ValueError(f"data.root: {root} {kind}; expected a folder with train/<class>/... or <class>/...")
    folder = root / train
    if folder.is_dir():
        if train == TRAIN and not _folders(folder) and set(map(str.lower, _folders(root))) - set(SPLIT_NAMES):
            raise ValueError(
                f"{folder} has no class folders, and there are other folders beside it; if train is the name of a class, "
                "set data.train to '.' and data.val to null, else give each class a folder in it"
            )
        return folder
    here = _folders(root)
    if train != TRAIN:
        raise ValueError(f"data.train: there is no folder {folder}; {root} has {shorten(here) or 'no folders'}")
    if other := [name for name in here if name.lower() in SPLIT_NAMES]:
        raise ValueError(
            f"data.train: there is no folder {folder}, but {shorten(other)}; set data.train and data.val to the folders of "
            "the splits, or data.train to '.' if these are classes"
        )
    _check_no_splits_inside(root, here)
    return root


def _check_no_splits_inside(root: Path, class_folders: list[str]) -> None:
    """Raise ValueError if the class folders in ``root``, which has no splits, have splits: its folders are no classes."""
    for name in class_folders[:MOST_FOLDERS]:
        inside = [folder for folder in _folders(root / name) if folder.lower() in SPLIT_NAMES]
        kinds = {folder.lower() in TRAIN_NAMES for folder in inside}
        if kinds == {True, False} or (True in kinds and len(class_folders) == 1):
            raise ValueError(
                f"data.root: {root / name} has folders for splits ({', '.join(inside)}); if it is a set, give it as "
                f"data.root; if it is a class, put the class folders into the splits: train/{name}"
            )


def find_val_folder(root: Path, val: str | None, train_folder: Path) -> Path | None:
    """Return the validation folder; None if there is none and a share of the training images is to be held out."""
    if val is None:
        return None
    folder = root / val
    if folder.is_dir():
        if train_folder.resolve() in folder.resolve().parents:
            raise ValueError(
                f"data.val: {folder} is in the training folder {train_folder}; set data.train to the folder of the training "
                "images, or data.val to null to hold out a share of them"
            )
        return folder
    if val != VAL:
        raise ValueError(f"data.val: there is no folder {folder}; set it to null to hold out data.val_share of the images")
    if other := [name for name in ("valid", "validation") if train_folder != root and (root / name).is_dir()]:
        raise ValueError(
            f"data.val: there is no folder {folder}, but {root / other[0]}; set data.val to {other[0]}, or to null to hold "
            "out data.val_share of the training images"
        )
    if train_folder == root and root.absolute().name.lower() in TRAIN_NAMES:
        _warn_of_val_beside(root)
    return None


def _warn_of_val_beside(root: Path) -> None:
    """Warn if there are validation images beside ``root``, a folder of training images."""
    parent = root.absolute().parent
    with suppress(OSError):  # a folder that may not be listed
        if unused := [name for name in _folders(parent) if name.lower() in VAL_NAMES]:
            rank_zero_warn(
                f"data.root: {root} has {shorten(unused)} beside it, which is not used, because validation images are held "
                f"out of {root}; give {parent} as data.root to use it"
            )


def _read_val(folder: Path, class_names: list[str], on_bad_image: BadImages) -> ImageIndex:
    scan, builder, labels = FolderScan(folder), IndexBuilder(folder), {name: n for n, name in enumerate(class_names)}
    found: list[str] = []
    empty: list[str] = []
    for name, below in scan.class_folders().items():
        parts = list(scan.images(below))
        (found if parts else empty).append(name)
        for at, names in parts if name in labels else ():
            builder.add(at, labels[name], names)
    if not found and scan.num_outside():
        raise ValueError(
            f"{folder} has {plural(scan.num_outside(), 'image')} and no class folders with images; move each image into the "
            "folder of its class"
        )
    check_known_classes(found, class_names, str(folder))
    _log_scan(scan, empty, on_bad_image)
    return builder.build()


def _log_scan(scan: FolderScan, empty: list[str], on_bad_image: BadImages) -> None:
    """Log what was left out. Raises ValueError if links lead to nothing and bad images are not skipped."""
    remarks = scan.remarks()
    if empty:
        text = f"{plural(len(empty), 'folder has', 'folders have')} no images, and no class is made of it: {shorten(empty)}"
        remarks.append(Remark("warning", text))
    log_remarks(str(scan.folder), remarks)
    if scan.broken_links:
        examples = ", ".join(map(decode_name, scan.broken_links[:3]))
        text = f"{scan.folder}: {plural(len(scan.broken_links), 'link')} to an image that does not exist, e.g. {examples}"
        if on_bad_image == "raise":
            raise ValueError(f"{text}; restore the images, remove the links, or set data.on_bad_image to skip")
        rank_zero_warn(f"{text}; left out")


def _folders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, except hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))
