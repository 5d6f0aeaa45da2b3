"""Findings of a data check that need only the annotations. Every training starts with this part of the check."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.annotations import Annotations, faulty_boxes
from data.remarks import Level
from detector.batch import Size
from detector.text import decode_name, plural

TINY = 8.0  # objects are tiny if the square root of their area is smaller, in pixels of the network input
MAX_DETECTIONS = 300  # in an image: COCO evaluation ignores further ones
FEW_OBJECTS = 10  # a class with fewer training objects gives a warning
MAX_EXAMPLES = 8  # of a finding
MAX_TINY_SHARE = 0.3  # of all objects: above it tiny objects give a warning

Splits = dict[str, Annotations]
ImageRef = tuple[str, int]  # an image by its split and its index in the split


@dataclass(frozen=True)
class Finding:
    """One result of a check. An error prevents training or makes results wrong; a warning is doubtful; a note informs."""

    level: Level
    split: str  # or "all"
    text: str
    examples: list[str] = field(default_factory=list)
    images: list[ImageRef] = field(default_factory=list)  # images that show it
    already_warned: bool = False  # reading the annotations gives the same warning

    def line(self) -> str:
        """Return the finding as one line of text, with up to three examples."""
        shown = "; ".join(self.examples[:3]) + ("; ..." if len(self.examples) > 3 else "")
        return f"{self.split}: {self.text}" + (f" ({shown})" if shown else "")


def check_annotations(splits: Splits, size: Size) -> list[Finding]:
    """Check the annotations for a network input of ``size`` (height, width). Takes a second at most."""
    findings: list[Finding] = []
    for split, annotations in splits.items():
        findings += [Finding(r.level, split, r.text, list(r.examples), already_warned=True) for r in annotations.remarks]
        findings += _doubtful_boxes(split, annotations)
        findings += _object_statistics(split, annotations, size)
        findings += _files_listed_twice(split, annotations)
    findings += _class_usage(splits)
    if "train" in splits:
        findings += _class_balance(splits["train"])
        findings += _files_shared_with_train(splits)
    return findings


def object_sides(annotations: Annotations, size: Size) -> np.ndarray:
    """Return the square root of each object's area, (N,), in pixels of a network input of ``size``."""
    ratio = np.minimum(size[0] / annotations.sizes[:, 0], size[1] / annotations.sizes[:, 1])
    return np.sqrt(annotations.bboxes[:, 2:].clip(0).prod(axis=1)) * ratio[annotations.image_indices()]


def class_counts(annotations: Annotations) -> np.ndarray:
    """Return the number of objects of each class, (C,), without crowds."""
    return np.bincount(annotations.labels[~annotations.crowds], minlength=len(annotations.class_names))


def image_finding(
    level: Level, split: str, text: str, annotations: Annotations, indices: Sequence[int] | np.ndarray
) -> Finding:
    """Return a finding about the images ``indices`` of a split, with the first of them as examples."""
    shown = [int(index) for index in indices[:MAX_EXAMPLES]]
    return Finding(level, split, text, [annotations.file_name(n) for n in shown], [(split, n) for n in shown])


def leak_findings(split: str, examples: list[str], train_indices: list[int], same: str) -> Iterator[Finding]:
    """Warn of images of ``split`` that are also in train, with the same "file" or "content"."""
    if train_indices:
        images = plural(len(train_indices), "image is", "images are")
        text = f"{images} also in train (the same {same}): results look better than they are"
        train_images = [("train", index) for index in train_indices[:MAX_EXAMPLES]]
        yield Finding("warning", split, text, examples[:MAX_EXAMPLES], train_images)


def _doubtful_boxes(split: str, annotations: Annotations) -> Iterator[Finding]:
    image_indices = annotations.image_indices()
    empty, outside = faulty_boxes(annotations.bboxes, annotations.sizes[image_indices])
    for mask, one, many, consequence, already_warned in (
        (empty, "box has", "boxes have", "no area inside the image; not trained on, and missed in evaluation", True),
        (outside, "box sticks", "boxes stick", "out of the image; clipped for training", True),
        (_repeated_boxes(annotations), "box repeats", "boxes repeat",
         "another one: the same class and place in the same image", False),
    ):  # fmt: skip
        if mask.any():
            shown = [(n, int(image_indices[n])) for n in np.flatnonzero(mask)[:MAX_EXAMPLES]]
            examples = [f"annotation {annotations.ids[n]} in {annotations.file_name(image)}" for n, image in shown]
            text = f"{plural(mask.sum(), one, many)} {consequence}"
            yield Finding("warning", split, text, examples, [(split, image) for _, image in shown], already_warned)


def _repeated_boxes(annotations: Annotations) -> np.ndarray:
    """Return a mask (N,) of the objects that repeat another one: same image, class, crowd flag and box."""
    rows = np.column_stack([annotations.image_indices(), annotations.labels, annotations.crowds, annotations.bboxes])
    order = np.lexsort(rows.T)
    repeated = np.zeros(len(rows), bool)
    repeated[order[1:]] = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
    return repeated


def _object_statistics(split: str, annotations: Annotations, size: Size) -> Iterator[Finding]:
    if not len(annotations.ids):
        yield Finding("warning", split, "there are no objects at all", already_warned=True)
        return
    counts = np.diff(annotations.offsets)
    images = f"{plural(len(annotations), 'image')}, {(counts == 0).sum()} without objects"
    objects = f"{plural(len(annotations.ids), 'object')}, {plural(annotations.crowds.sum(), 'crowd')} among them"
    yield Finding("note", split, f"{images}; {objects}; {counts.mean():.1f} an image, at most {counts.max()}")
    yield from _crowded_images(split, annotations, counts)
    tiny_share = (object_sides(annotations, size) < TINY).mean()
    text = f"{tiny_share:.1%} of the objects are smaller than {TINY:g} x {TINY:g} pixels of the network input"
    if tiny_share > MAX_TINY_SHARE:
        yield Finding("warning", split, f"{text}; a larger data.image_size or a -p2 variant would see more of them")
    else:
        yield Finding("note", split, text)


def _crowded_images(split: str, annotations: Annotations, counts: np.ndarray) -> Iterator[Finding]:
    """Warn of images with more objects than an evaluation looks at; ``counts`` (I,) are objects of each image."""
    crowded = np.flatnonzero(counts > MAX_DETECTIONS)
    if len(crowded):
        images = plural(len(crowded), "image has", "images have")
        limit = f"COCO evaluation looks at {MAX_DETECTIONS} detections at most"
        text = f"{images} more than {MAX_DETECTIONS} objects; {limit}"
        yield image_finding("warning", split, text, annotations, crowded)


def _files_listed_twice(split: str, annotations: Annotations) -> Iterator[Finding]:
    names, counts = np.unique(annotations.file_names, return_counts=True)
    repeated = names[counts > 1]
    if len(repeated):
        text = f"{plural(len(repeated), 'file is', 'files are')} listed as more than one image"
        yield Finding("warning", split, text, [decode_name(name) for name in repeated[:MAX_EXAMPLES]])


def _class_usage(splits: Splits) -> Iterator[Finding]:
    """Warn of classes without objects in all splits, in train, or in val."""
    names = next(iter(splits.values())).class_names if splits else []
    counts = {split: class_counts(annotations) for split, annotations in splits.items()}
    if unused := [name for n, name in enumerate(names) if not any(count[n] for count in counts.values())]:
        one, many = f"of {len(names)} classes is", f"of {len(names)} classes are"
        yield Finding("warning", "all", f"{plural(len(unused), one, many)} never used", unused)
    if "train" not in counts:
        return
    for split, count in counts.items():
        rows = list(zip(names, count, counts["train"]))
        if not_learned := [name for name, in_split, in_train in rows if in_split and not in_train]:
            text = f"{plural(len(not_learned), 'class is', 'classes are')} only here and not in train: never learned"
            yield Finding("warning", split, text, not_learned)
        not_measured = [name for name, in_split, in_train in rows if in_train and not in_split]
        if split == "val" and not_measured:
            text = f"{plural(len(not_measured), 'class of train is', 'classes of train are')} not in val: never measured"
            yield Finding("warning", split, text, not_measured)


def _class_balance(train: Annotations) -> Iterator[Finding]:
    counts = list(zip(class_counts(train).tolist(), train.class_names))
    if few := [f"{name}: {count}" for count, name in counts if 0 < count < FEW_OBJECTS]:
        text = f"{plural(len(few), 'class has', 'classes have')} fewer than {FEW_OBJECTS} objects"
        yield Finding("warning", "train", text, few)
    if used := [(count, name) for count, name in counts if count]:
        (least, rarest), (most, commonest) = min(used), max(used)
        text = f"class balance: {most} x {commonest} to {least} x {rarest}, {most / least:.0f} to 1"
        if len(used) == 1:
            text = f"class balance: all {plural(most, 'object')} are {commonest}" if most > 1 else f"one object, {commonest}"
        yield Finding("note", "train", text)


def _files_shared_with_train(splits: Splits) -> Iterator[Finding]:
    train_indices = {path: n for n, path in enumerate(_normalized_paths(splits["train"]))}
    for split, annotations in splits.items():
        if split != "train":
            shared = [path for path in _normalized_paths(annotations) if path in train_indices]
            yield from leak_findings(split, shared, [train_indices[path] for path in shared], "file")


def _normalized_paths(annotations: Annotations) -> list[str]:
    folder = annotations.folder.resolve()
    return [os.path.normpath(folder / decode_name(name)) for name in annotations.file_names]
