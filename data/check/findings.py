"""What is wrong with a data set, or doubtful: from the annotations alone at the start of every training, and with every
image decoded by ``python -m data check``."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from data.annotations import Annotations, faulty_boxes
from data.images import read_image
from detector.imaging.read import UNREADABLE, BadImageError, exif_orientation, read_file
from detector.text import plural

TINY = 8.0  # objects below so many pixels of the network input, as the square root of the area, are tiny
MANY = 300  # objects in an image: evaluation looks at no more detections
FEW = 10  # training objects of a class
Splits = dict[str, Annotations]
Where = tuple[str, int]  # split and number of an image


@dataclass(frozen=True)
class Finding:
    """An error makes training impossible or its results wrong, a warning is doubtful, a note is good to know."""

    level: Literal["error", "warning", "note"]
    split: str  # or "all"
    text: str
    examples: list[str] = field(default_factory=list)
    where: list[Where] = field(default_factory=list)  # images that show it
    told: bool = False  # reading the annotations warns of it already

    def line(self) -> str:
        """Say it in one line, with three examples."""
        shown = "; ".join(self.examples[:3]) + ("; ..." if len(self.examples) > 3 else "")
        return f"{self.split}: {self.text}" + (f" ({shown})" if shown else "")


def check_annotations(splits: Splits, size: tuple[int, int]) -> list[Finding]:
    """Return what the annotations alone show, for a network input of ``size`` (height, width). Takes a second at most."""
    findings: list[Finding] = []
    for split, annotations in splits.items():
        findings += [*_boxes(split, annotations), *_numbers(split, annotations, size)]
        findings += _listed_twice(split, annotations)
    findings += _classes(splits)
    if "train" in splits:
        findings += _shared_paths(splits)
    return findings


def _boxes(split: str, annotations: Annotations) -> Iterator[Finding]:
    owners = annotations.owners()
    empty, outside = faulty_boxes(annotations)
    rows = np.column_stack([owners, annotations.labels, annotations.crowds, annotations.bboxes])
    order = np.lexsort(rows.T)
    same = np.zeros(len(rows), bool)
    same[order[1:]] = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
    for mask, one, many, then, told in (
        (empty, "box has", "boxes have", "no area inside the image; not trained on, and missed in evaluation", True),
        (outside, "box sticks", "boxes stick", "out of the image; clipped for training", True),
        (same, "box repeats", "boxes repeat", "another one: the same class and place in the same image", False),
    ):
        if mask.any():
            found = np.flatnonzero(mask)[:8]
            examples = [f"annotation {annotations.ids[n]} in {_name(annotations, owners[n])}" for n in found]
            where = [(split, int(owners[n])) for n in found]
            yield Finding("warning", split, f"{plural(mask.sum(), one, many)} {then}", examples, where, told)


def _numbers(split: str, annotations: Annotations, size: tuple[int, int]) -> Iterator[Finding]:
    if not len(annotations.ids):
        yield Finding("warning", split, "there are no objects at all", told=True)
        return
    counts = np.diff(annotations.offsets)
    yield Finding(
        "note",
        split,
        f"{plural(len(annotations), 'image')}, {(counts == 0).sum()} without objects; "
        f"{plural(len(annotations.ids), 'object')}, {plural(annotations.crowds.sum(), 'crowd')} among them; "
        f"{counts.mean():.1f} an image, at most {counts.max()}",
    )
    if counts.max() > MANY:
        crowded = np.flatnonzero(counts > MANY)
        yield Finding(
            "warning",
            split,
            f"{plural(len(crowded), 'image has', 'images have')} more than {MANY} objects; "
            f"COCO evaluation looks at {MANY} detections at most",
            [_name(annotations, n) for n in crowded[:8]],
            [(split, int(n)) for n in crowded[:8]],
        )
    sides = object_sides(annotations, size)
    share = (sides < TINY).mean()
    level = "warning" if share > 0.3 else "note"
    advice = "; a larger data.image_size or a -p2 variant would see more of them" if level == "warning" else ""
    text = f"{share:.1%} of the objects are smaller than {TINY:g} x {TINY:g} pixels of the network input{advice}"
    yield Finding(level, split, text)


def object_sides(annotations: Annotations, size: tuple[int, int]) -> np.ndarray:
    """Return the square root of each object's area, (N,), in pixels of a network input of ``size``."""
    ratio = np.minimum(size[0] / annotations.sizes[:, 0], size[1] / annotations.sizes[:, 1])
    return np.sqrt(annotations.bboxes[:, 2:].clip(0).prod(axis=1)) * ratio[annotations.owners()]


def _listed_twice(split: str, annotations: Annotations) -> Iterator[Finding]:
    names, counts = np.unique(annotations.file_names, return_counts=True)
    if (counts > 1).any():
        twice = [name.decode() for name in names[counts > 1][:8]]
        yield Finding(
            "warning", split, f"{plural((counts > 1).sum(), 'file is', 'files are')} listed as more than one image", twice
        )


def _classes(splits: Splits) -> Iterator[Finding]:
    names = next(iter(splits.values())).class_names if splits else []
    counts = {split: class_counts(annotations) for split, annotations in splits.items()}
    if unused := [name for n, name in enumerate(names) if not any(count[n] for count in counts.values())]:
        one, many = f"of {len(names)} classes is", f"of {len(names)} classes are"
        yield Finding("warning", "all", f"{plural(len(unused), one, many)} never used", unused)
    if "train" not in counts:
        return
    train = counts["train"]
    for split, count in counts.items():
        if unlearned := [name for name, here, there in zip(names, count, train) if here and not there]:
            text = f"{plural(len(unlearned), 'class is', 'classes are')} only here and not in train: never learned"
            yield Finding("warning", split, text, unlearned)
        if split == "val" and (unjudged := [name for name, here, there in zip(names, count, train) if there and not here]):
            text = f"{plural(len(unjudged), 'class of train is', 'classes of train are')} not in val: never measured"
            yield Finding("warning", split, text, unjudged)
    if few := [f"{name}: {count}" for name, count in zip(names, train) if 0 < count < FEW]:
        yield Finding("warning", "train", f"{plural(len(few), 'class has', 'classes have')} fewer than {FEW} objects", few)
    used = [(int(count), name) for name, count in zip(names, train) if count]
    if used:
        (least, rare), (most, common) = min(used), max(used)
        yield Finding("note", "train", f"class balance: {most} x {common} to {least} x {rare}, {most / least:.0f} to 1")


def class_counts(annotations: Annotations) -> np.ndarray:
    """Return how many objects, crowds aside, each class has, (C,)."""
    return np.bincount(annotations.labels[~annotations.crowds], minlength=len(annotations.class_names))


def _shared_paths(splits: Splits) -> Iterator[Finding]:
    folder = {split: annotations.folder.resolve() for split, annotations in splits.items()}
    train = {os.path.normpath(folder["train"] / name.decode()): n for n, name in enumerate(splits["train"].file_names)}
    for split, annotations in splits.items():
        if split != "train":
            paths = [os.path.normpath(folder[split] / name.decode()) for name in annotations.file_names]
            shared = [(path, train[path]) for path in paths if path in train]
            yield from _leak(split, [path for path, _ in shared], [("train", n) for _, n in shared], "file")


def _leak(split: str, examples: list[str], where: list[Where], what: str) -> Iterator[Finding]:
    if where:
        many = plural(len(where), "image is", "images are")
        text = f"{many} also in train (the same {what}): results look better than they are"
        yield Finding("warning", split, text, examples[:8], where[:8])


@dataclass(frozen=True)
class FileFacts:
    """What decoding an image's file has shown."""

    digest: bytes  # of its content; empty if it cannot be read
    kind: str  # "RGB", "grayscale", "CMYK", "16 bits a channel", "with transparency" or "palette"
    turned: bool  # whether its EXIF data ask for turning or mirroring
    error: str | None  # why it cannot be used


def check_files(splits: Splits) -> list[Finding]:
    """Read and decode every image, and return what is wrong with them. Takes about 5 ms an image and core."""
    findings: list[Finding] = []
    facts: dict[str, list[FileFacts]] = {}
    for split, annotations in splits.items():
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            facts[split] = list(pool.map(lambda n, a=annotations: _file_facts(a, n), range(len(annotations))))
        findings += _file_findings(split, annotations, facts[split])
    by_digest: dict[str, dict[bytes, list[int]]] = {}
    for split, found in facts.items():
        numbers = by_digest[split] = defaultdict(list)
        for n, fact in enumerate(found):
            if fact.digest:
                numbers[fact.digest].append(n)
        copies = [group for group in numbers.values() if len({splits[split].file_names[n] for n in group}) > 1]
        if copies:
            examples = [" = ".join(_name(splits[split], n) for n in group[:3]) for group in copies[:8]]
            text = f"{plural(len(copies), 'image is', 'images are')} there more than once, under different names"
            findings.append(Finding("warning", split, text, examples, [(split, group[0]) for group in copies[:8]]))
    for split in by_digest.keys() - {"train"}:
        shared = [digest for digest in by_digest[split] if digest in by_digest.get("train", {})]
        pairs = [(by_digest["train"][digest][0], by_digest[split][digest][0]) for digest in shared]
        examples = [f"{_name(splits['train'], a)} = {_name(splits[split], b)}" for a, b in pairs]
        findings += _leak(split, examples, [("train", a) for a, _ in pairs], "content")
    return findings


def _file_facts(annotations: Annotations, n: int) -> FileFacts:
    digest, kind, turned = b"", "RGB", False
    try:
        content = read_file(annotations.image_path(n))
        digest, turned = hashlib.blake2b(content, digest_size=16).digest(), exif_orientation(content) != 1
        kind = image_kind(content)
        read_image(annotations.image_path(n), tuple(annotations.sizes[n].tolist()), annotations.upright)
    except BadImageError as error:
        return FileFacts(digest, kind, turned, str(error))
    return FileFacts(digest, kind, turned, None)


def image_kind(content: bytes) -> str:
    """Return what kind of pixels an image file has, from its header; see FileFacts."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, bits = image.mode, 8
            if image.format == "PNG":
                bits = content[24]  # in the first chunk, behind width and height; Pillow does not tell it for RGB
            elif image.format == "TIFF":
                bits = max(image.tag_v2.get(258, (8,)))
            has_alpha = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except UNREADABLE:  # formats that OpenCV alone can read
        return "RGB"
    if bits == 16 or mode.startswith(("I", "F")):
        return "16 bits a channel"
    if has_alpha:
        return "with transparency"
    return {"L": "grayscale", "1": "grayscale", "CMYK": "CMYK", "P": "palette"}.get(mode, "RGB")


READ_AS = {
    "grayscale": "three equal channels",
    "palette": "RGB",
    "CMYK": "RGB",
    "with transparency": "the colors that are stored, also where nothing would be seen",
    "16 bits a channel": "the upper 8 bits; look for dark ones (12 bits stored in 16, say)",
}


def _file_findings(split: str, annotations: Annotations, facts: list[FileFacts]) -> Iterator[Finding]:
    if bad := [n for n, fact in enumerate(facts) if fact.error]:
        yield Finding("error", split, f"{plural(len(bad), 'image')} cannot be used", [facts[n].error or "" for n in bad])
    if turned := [n for n, fact in enumerate(facts) if fact.turned and not fact.error]:
        how = (
            "which is applied"
            if annotations.upright
            else "which is applied where the size on file is that of the turned image"
        )
        yield Finding(
            "note" if annotations.upright else "warning",
            split,
            f"{plural(len(turned), 'image has', 'images have')} an EXIF rotation, {how}; look whether the boxes fit",
            [_name(annotations, n) for n in turned[:8]],
            [(split, n) for n in turned[:8]],
        )
    for kind, how in READ_AS.items():
        if found := [n for n, fact in enumerate(facts) if fact.kind == kind and not fact.error]:
            level = "warning" if kind == "16 bits a channel" else "note"
            where = [(split, n) for n in found[:8]]
            text = f"{plural(len(found), 'image')} ({kind}) read as {how}"
            yield Finding(level, split, text, [_name(annotations, n) for n in found[:8]], where)


def _name(annotations: Annotations, n: int) -> str:
    return annotations.file_names[n].decode()
