"""Images and label files of a YOLO set: which belong together, and what is left out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.remarks import Remark
from detector.files import is_hidden, real_files, walk_folder
from detector.imaging.read import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from detector.text import plural

MAX_EXAMPLES = 8
LABEL_SUFFIXES = (".txt", ".text", ".xml", ".json", ".csv")  # only the first is read
LABEL_FOLDERS = ("labels", "Labels", "label", "annotations", "Annotations", "txt", "xml")  # where people put labels
NO_LABELS = (  # starts of names of files beside labels
    "classes.", "labels.", "train.", "val.", "valid.", "test.", "requirements.", "license.", "readme", "notes.", "_darknet.",
    "_annotations.", "_classes.", "obj.", "predefined_",
)  # fmt: skip


@dataclass
class SplitImages:
    """The images of a split in order, the folders that were searched, and what was noticed."""

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


def label_path(image: Path) -> Path:
    """Return the path of an image's label file."""
    return _exchanged(image, "images", "labels").with_suffix(".txt")


def find_images(value: Any, folder: Path, name: str) -> SplitImages:
    """Return the images of the split's ``value``, one entry or a list of entries; ``name`` is for messages.

    Raises ValueError for an entry that does not exist or has no images.
    """
    split_images = SplitImages()
    listed: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        listed += _images_of_entry(entry, folder, name, split_images)
    split_images.images = real_files(listed)
    if len(split_images.images) < len(listed):
        repeated = plural(len(listed) - len(split_images.images), "image is", "images are")
        split_images.remarks.append(Remark("warning", f"{repeated} listed more than once; each is taken once"))
    return split_images


def label_remarks(split_images: SplitImages, folder: Path) -> list[Remark]:
    """Return warnings of labels and images that do not belong together as they should; ``folder`` is that of the set.

    They count labels without an image, images whose labels have another name, suffix or place, and labeled files of other
    formats.
    """
    files = _Files()
    unlabeled = [image for image in split_images.images if not os.path.isfile(label_path(image))]
    similar = _similar_files(unlabeled, split_images, folder, files)
    others = [path for parent in split_images.folders for path in files.below(parent) if _is_other(path)]
    # Not a cache or the like beside an image of the same name.
    others = [path for path in others if not files.have_image_of(label_path(path))]
    other_formats = [path for path in others if os.path.isfile(label_path(path))]
    unlabeled_others = [path for path in {*others} - {*other_formats} if path.suffix.lower() in OTHER_IMAGE_SUFFIXES]
    explained = {path for paths in similar.values() for path in paths} | {label_path(path) for path in other_formats}
    labels = files.of_kind(_label_folders(split_images), LABEL_SUFFIXES[:1])
    orphans = [path for path in labels if path not in explained and not files.have_image_of(path)]
    remarks = _similar_remarks(similar, folder) + _other_format_remarks(other_formats, unlabeled_others, folder)
    if orphans:
        subject = plural(len(orphans), "label file has", "label files have")
        text = f"{subject} no image and cannot be used; restore the images"
        remarks.append(Remark("warning", text, _shown(orphans, folder)))
    return remarks


def _similar_remarks(similar: dict[Path, list[Path]], folder: Path) -> list[Remark]:
    """Return a warning of images without a label file, but with a ``similar`` file."""
    if not similar:
        return []
    expected, nearest = map(label_path, similar), (paths[0] for paths in similar.values())
    examples = zip(_shown(similar, folder), _shown(expected, folder), _shown(nearest, folder))
    text = (
        f"{plural(len(similar), 'image has no label file', 'images have no label files')} at the expected place, but there "
        "are files of another suffix, place or case; the images count as images without objects: move, rename or convert "
        "these files"
    )
    shown = tuple(f"{image}: expected {expected}, there is {nearest}" for image, expected, nearest in examples)
    return [Remark("warning", text, shown)]


def _other_format_remarks(labeled: list[Path], unlabeled: list[Path], folder: Path) -> list[Remark]:
    """Return remarks of files of formats that are not read: a warning of the ``labeled`` ones, a note of the others."""
    remarks = []
    if labeled:
        subject = plural(len(labeled), "labeled file is", "labeled files are")
        text = f"{subject} left out, being of a format that is not read ({_suffixes(labeled)}); convert to PNG or JPEG"
        remarks.append(Remark("warning", text, _shown(labeled, folder)))
    if unlabeled:
        subject = plural(len(unlabeled), "file without labels is", "files without labels are")
        text = f"{subject} left out, being of a format that is not read ({_suffixes(unlabeled)})"
        remarks.append(Remark("note", text, _shown(sorted(unlabeled), folder)))
    return remarks


def _shown(paths: Iterable[Path], folder: Path) -> tuple[str, ...]:
    """Return the first of ``paths`` for a message, relative to ``folder``."""
    return tuple(_relative(path, folder) for _, path in zip(range(MAX_EXAMPLES), paths))


def _is_other(path: Path) -> bool:
    return path.suffix.lower() not in IMAGE_SUFFIXES + LABEL_SUFFIXES


def _suffixes(paths: Iterable[Path]) -> str:
    return "suffix " + ", ".join(sorted({path.suffix or "none" for path in paths}))


class _Files:
    """The files of folders, each folder read once."""

    def __init__(self) -> None:
        self._below: dict[Path, list[Path]] = {}
        self._stems: dict[Path, set[str]] = {}

    def below(self, folder: Path) -> list[Path]:
        """Return the files in ``folder`` and its sub-folders, none if it does not exist."""
        if folder not in self._below:
            self._below[folder] = walk_folder(folder).files if folder.is_dir() else []
        return self._below[folder]

    def of_kind(self, folders: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
        """Return the files below ``folders`` that have one of ``suffixes`` and may be labels."""
        paths = {path for folder in folders for path in self.below(folder) if path.suffix.lower() in suffixes}
        return sorted(path for path in paths if not path.name.lower().startswith(NO_LABELS))

    def have_image_of(self, label: Path) -> bool:
        """Return True if ``label`` is where the label file of an existing image is, of any split."""
        folders = {_exchanged(label, "labels", "images").parent, label.parent}
        return label.suffix == ".txt" and any(
            label.stem in self._image_stems(folder) and label_path(folder / f"{label.stem}.jpg") == label
            for folder in folders
        )

    def may_belong(self, label: Path, image: Path) -> bool:
        """Return False if ``label`` is where labels of the images of another folder are."""
        folder = _exchanged(label, "labels", "images").parent
        return folder == image.parent or not self._image_stems(folder)

    def _image_stems(self, folder: Path) -> set[str]:
        if folder not in self._stems:
            names = map(Path, os.listdir(folder) if folder.is_dir() else [])
            self._stems[folder] = {p.stem for p in names if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p.name)}
        return self._stems[folder]


def _similar_files(unlabeled: list[Path], split_images: SplitImages, folder: Path, files: _Files) -> dict[Path, list[Path]]:
    """Return the files whose names are those of the ``unlabeled`` images, but for case and suffix, by image."""
    if not unlabeled:
        return {}
    folders = {*_label_folders(split_images), *(folder / name for name in LABEL_FOLDERS)}
    for image in unlabeled:
        folders |= {image.parent, image.parent / "labels", image.parent.parent / "labels"}
        folders.add(_exchanged(image, "images", ".").parent / "labels")  # train/labels for images/train
    by_stem: dict[str, list[Path]] = {}
    for path in files.of_kind(folders, LABEL_SUFFIXES):
        if not files.have_image_of(path):
            by_stem.setdefault(_stem(path), []).append(path)
    pairs = {image: by_stem.get(image.stem.lower(), []) for image in unlabeled}
    pairs = {image: [path for path in paths if files.may_belong(path, image)] for image, paths in pairs.items()}
    return {image: paths for image, paths in pairs.items() if paths}


def _stem(label: Path) -> str:
    """Return the name of the image that ``label`` may belong to: of ``a.txt`` and ``A.jpg.txt`` it is ``a``."""
    name = label.stem.lower()
    return Path(name).stem if name.endswith(IMAGE_SUFFIXES) else name


def _label_folders(split_images: SplitImages) -> set[Path]:
    """Return the folders with the labels of the images, and those where labels of the searched folders would be."""
    return {
        label_path(parent / "image.jpg").parent
        for parent in {image.parent for image in split_images.images} | set(split_images.folders)
    }


def _exchanged(path: Path, old: str, new: str) -> Path:
    """Return ``path`` with the last folder named ``old`` renamed to ``new``."""
    parts = list(path.parts)
    for n in range(len(parts) - 2, -1, -1):
        if parts[n] == old:
            parts[n] = new
            break
    return Path(*parts)


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _images_of_entry(entry: Any, folder: Path, name: str, split_images: SplitImages) -> list[Path]:
    path = _existing(str(entry), folder)
    if path is None:
        raise ValueError(f"{name} is {entry!r}, but there is no {folder / str(entry)}; {_advice(str(entry))}")
    if os.path.isdir(path):
        images = _list_folder(path, split_images)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        images = [path]
    else:
        images = _read_list(path, folder, name)
    if not images:
        others = [file for file in walk_folder(path).files if file.suffix.lower() in OTHER_IMAGE_SUFFIXES]
        hint = (
            f"; of formats that are not read, it has {plural(len(others), 'file')} ({_suffixes(others)})" if others else ""
        )
        raise ValueError(f"{name} is {entry!r}, but {path} has no images ({', '.join(IMAGE_SUFFIXES)}){hint}")
    return images


def _existing(entry: str, folder: Path) -> Path | None:
    """Return the path of a split's entry, with the habits of exporters: ``../`` for the file's own folder, backslashes."""
    for text in (entry, entry.replace("\\", "/")):
        for path in (folder / text, folder / text.removeprefix("../") if text.startswith("../") else None):
            if path is not None and os.path.exists(path):
                return path
    return None


def _advice(entry: str) -> str:
    if entry.startswith("/") or entry[1:2] == ":":
        return "the path is of another place or computer: write it relative to the folder of the data set"
    return "correct it, or get the data set first"


def _list_folder(folder: Path, split_images: SplitImages) -> list[Path]:
    """Return the images in ``folder`` and its sub-folders, sorted, each real file once. Links are followed."""
    walked = walk_folder(folder)
    split_images.folders.append(folder)
    hidden = [path for path in walked.hidden if path.suffix.lower() in IMAGE_SUFFIXES]
    for left_out, one, many in (
        (hidden, "hidden image file is left out", "hidden image files are left out"),
        (walked.repeated, "link to what is there already is left out", "links to what is there already are left out"),
    ):
        if left_out:
            examples = tuple(_relative(path, folder) for path in left_out[:MAX_EXAMPLES])
            split_images.remarks.append(Remark("note", f"{folder}: {plural(len(left_out), one, many)}", examples))
    return [path for path in walked.files if path.suffix.lower() in IMAGE_SUFFIXES]


def _read_list(file: Path, folder: Path, name: str) -> list[Path]:
    """Return the images in a text file: paths relative to the file, to ``folder``, to the folder above it, or to here.

    Raises ValueError if images are missing.
    """
    lines = [line.strip().replace("\\", "/") for line in read_lines(file)]  # backslashes are from Windows
    images: list[Path] = []
    missing: list[str] = []
    for line in filter(None, lines):
        candidates = [file.parent / line, folder / line, folder.parent / line, Path(line)]
        path = next((path for path in candidates if os.path.isfile(path)), None)
        if path is None:
            missing.append(line)
        else:
            images.append(path)
    if missing:
        total = plural(len(images) + len(missing), "image")
        raise ValueError(
            f"{name}: {len(missing)} of {total} in the list {file} cannot be found, e.g. {missing[0][:200]}; "
            f"{_advice(missing[0])}"
        )
    return images


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file. Raises ValueError if it is not one in UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()  # sig: editors on Windows write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is not a text file in UTF-8 ({error})") from None
