"""The classes and splits of a set of labeled images, from class folders or COCO files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from data.classification.index import ImageIndex, IndexBuilder
from data.classification.split_hash import held_out, path_hashes
from detector.text import nearest_names, plural

TRAIN, VAL = "train", "val"
MAX_NAMES = 10  # of classes in a message


@dataclass(frozen=True)
class ClassSplits:
    """The C classes of a set, and the images of its splits, "train" and "val"."""

    class_names: list[str]
    category_ids: list[int]  # 0..C-1, or the ids in an annotation file
    splits: dict[str, ImageIndex]
    sources: dict[str, str]  # where the images of each split come from, for messages
    is_held_out: bool = False  # val is a share of the training images


Parts = list[tuple[bytes, list[bytes]]]  # folders, each with the names of its images


class SplitBuilder:
    """Collects the images of a training source, class by class, and holds out ``val_share`` of them for validation."""

    def __init__(self, train: IndexBuilder, val: IndexBuilder, val_share: float) -> None:
        self.train, self.val, self.val_share = train, val, val_share

    def add(self, label: int, parts: Parts, hashed_folders: Sequence[str]) -> None:
        """Add the images of a class; ``hashed_folders`` are the folders' paths from the class on, for the hash."""
        if not self.val_share:
            for folder, names in parts:
                self.train.add(folder, label, names)
            return
        hashes = [path_hashes(hashed, names) for hashed, (_, names) in zip(hashed_folders, parts)]
        mask = held_out(np.concatenate(hashes), self.val_share)
        start = 0
        for folder, names in parts:
            is_val = mask[start : start + len(names)].tolist()
            self.train.add(folder, label, [name for name, chosen in zip(names, is_val) if not chosen])
            self.val.add(folder, label, [name for name, chosen in zip(names, is_val) if chosen])
            start += len(names)

    def source(self, train: str) -> str:
        """Describe the source of the validation images that are held out of ``train``."""
        return f"{self.val_share:.3g} of {train}, chosen by a hash of the path"


def check_splits(splits: ClassSplits) -> None:
    """Log the classes and the numbers of images. Raises ValueError if there is nothing to learn or to measure."""
    names, train, val = splits.class_names, splits.splits[TRAIN], splits.splits[VAL]
    if len(names) < 2:
        only = f"one class only, {names[0]!r}" if names else "no class with images"
        raise ValueError(
            f"{splits.sources[TRAIN]} has {only}; a classifier needs two. Expected class folders with images: "
            "data.root/train/<class>/..., or data.root/<class>/..."
        )
    if not len(val):
        raise ValueError(
            f"val has no images: {splits.sources[VAL]}, of {plural(len(train), 'image')}; give more images, a "
            "larger data.val_share, or a folder as data.val"
        )
    classes = plural(len(names), "class", "classes")
    rank_zero_info(f"train: {plural(len(train), 'image')} in {classes} ({shorten(names)}); {splits.sources[TRAIN]}")
    not_measured = [names[n] for n in np.flatnonzero(val.counts(len(names)) == 0).tolist()]
    rank_zero_info(f"val: {plural(len(val), 'image')}; {splits.sources[VAL]}")
    if not_measured:
        text = plural(len(not_measured), "class of train has", "classes of train have")
        rank_zero_warn(
            f"val: {text} no images there, so accuracy does not measure them: {shorten(not_measured)}; add images, or, if "
            "val is held out of train, set a larger data.val_share"
        )


def check_known_classes(val_names: Sequence[str], class_names: Sequence[str], source: str) -> None:
    """Raise ValueError if one of ``val_names`` is not a class of train."""
    known = set(class_names)
    if unknown := [name for name in val_names if name not in known]:
        near = nearest_names(unknown[0], class_names, limit=1)
        hint = f" ({near[0]!r} is in train)" if near else ""
        raise ValueError(
            f"{source} has {plural(len(unknown), 'class', 'classes')} that train does not have, and cannot teach: "
            f"{shorten(unknown)}{hint}. Train has {plural(len(known), 'class', 'classes')}: {shorten(class_names)}. Rename "
            "or remove these classes, or add training images"
        )


def shorten(names: Sequence[str]) -> str:
    """Return the first names, separated by commas."""
    return ", ".join(names[:MAX_NAMES]) + (f", ... {len(names)} in all" if len(names) > MAX_NAMES else "")
