"""Finds the XML files, images and lists of Pascal VOC sets in a folder."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.yolo_folders import read_lines
from data.yolo_yaml import SPLIT_KEYS
from detector.files import is_hidden
from detector.imaging.read import IMAGE_SUFFIXES

XML_FOLDERS = ("annotations", "annotation", "xmls", "xml")  # in lower case; the first that has XML files
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")


@dataclass(frozen=True)
class VocSource:
    """XML files and images of a split: all in two folders, or those with the ``names`` in a list file."""

    xml_folder: Path
    image_folder: Path
    list_file: Path | None = None
    names: tuple[str, ...] = ()  # relative to the folders, without suffix


Sources = dict[str, list[VocSource]]  # by split: "train", "val", "test"


def find_voc(root: Path) -> Sources:
    """Return the sources of the splits in ``root``; no splits if there are no XML files where Pascal VOC sets have them.

    ``root`` is a set, or holds folders ``train``, ``val`` (or ``valid``) and ``test`` that are, or other folders, as
    ``VOC2007`` and ``VOC2012``, whose splits are joined. A set has its XML files in ``Annotations`` and its images in
    ``JPEGImages``, or XML files and images together; lists of images are in ``ImageSets/Main``. Raises ValueError for lists,
    and for folders of splits, without one of training images.
    """
    below = sub_folders(root)
    by_split = {split: [path for path in below if path.name.lower() in SPLIT_KEYS[split]] for split in SPLIT_KEYS}
    sources = {split: [source for path in paths if (source := _whole_set(path))] for split, paths in by_split.items()}
    if sources["train"]:
        return {split: found for split, found in sources.items() if found}
    if any(sources.values()) and not _whole_set(root):
        names = ", ".join(path.name for paths in by_split.values() for path in paths if _whole_set(path))
        raise ValueError(
            f"data.root: {root} has XML files in {names}, but none in a folder train; restore them, or give the folders as "
            "data.train_annotations, data.train_images, and so on"
        )
    nested = [inner for path in below for inner in sub_folders(path)]
    for level in ([root], below, nested):
        if sets := [path for path in level if _whole_set(path)]:
            joined = _join([_sources_of_set(path) for path in sets])
            if "train" not in joined:
                lists = ", ".join(str(source.list_file) for found in joined.values() for source in found)
                raise ValueError(
                    f"data.root: {root} has lists of images ({lists}), none of them train.txt or trainval.txt; add one, or "
                    "give the list of the training images as data.train_annotations"
                )
            return joined
    return {}


def given_source(annotations: Path, image_folder: Path | None, root: Path) -> VocSource:
    """Return the source that a user names: a list of images, or a folder of XML files, with or without an image folder.

    The XML files of a list are those of the set of the image folder, else those beside a parent of the list or in ``root``.
    Raises ValueError if there are none.
    """
    if annotations.is_dir():
        return VocSource(annotations, image_folder or _image_folder(annotations.parent, annotations))
    source = None if image_folder is None else set_of_images(image_folder)
    folders = (*annotations.parents[:4], root)
    source = source or next((found for folder in folders if (found := _whole_set(folder))), None)
    if source is None:
        beside = "" if image_folder is None else f", nor beside {image_folder}"
        raise ValueError(
            f"{annotations} is a list of images, but there is no folder Annotations with XML files in {root} or above the "
            f"list{beside}; name the folder with the XML files Annotations"
        )
    return VocSource(source.xml_folder, image_folder or source.image_folder, annotations, read_list(annotations))


def set_of_images(folder: Path) -> VocSource | None:
    """Return the set whose images are in ``folder`` or above it; None if there is none."""
    folder = folder.absolute()
    folders = (folder, *folder.parents[:3])
    return next((one for above in folders if (one := _whole_set(above)) and folder.is_relative_to(one.image_folder)), None)


def folder_of_images(folder: Path) -> Path:
    """Return the folder of all images of a set: ``folder``, or the one above it if its name says so (images/train)."""
    return folder.parent if folder.parent.name.lower() in IMAGE_FOLDERS else folder


def has_xml(folder: Path) -> bool:
    """Return True if ``folder`` or one of its direct sub-folders has an XML file."""
    return any(_has_suffix(path, (".xml",)) for path in (folder, *sub_folders(folder)))


def read_list(file: Path) -> tuple[str, ...]:
    """Return the names of images in a list, without suffix. Raises ValueError for a list without names.

    In a list of one class, every line is a name and 1, 0 or -1: all its names are taken.
    """
    names = listed_names(read_lines(file))
    if not names:
        raise ValueError(f"{file}: the list is empty; expected the name of an image in each line, or no such file")
    return names


def listed_names(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the lines of a list, see ``read_list``."""
    given = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    without_flag = [re.sub(r"\s+-?[01]$", "", line) for line in given]
    is_of_one_class = all(name != line for name, line in zip(without_flag, given))
    return tuple(_without_suffix(name) for name in (without_flag if is_of_one_class else given))


def _sources_of_set(folder: Path) -> Sources:
    """Return the sources of the splits of one set: by its lists, by sub-folders of its XML folder, or all of it as train."""
    whole = _whole_set(folder)
    assert whole is not None, "only for folders of sets"
    lists = _lists(folder)
    names = {name: read_list(path) for name, path in lists.items()}
    if "trainval" in lists:  # the rest of it, if only one of the two has a list
        for half, other in (("train", "val"), ("val", "train")):
            if half not in lists and (half == "train" or other in lists):
                lists[half] = lists["trainval"]
                names[half] = tuple(name for name in names["trainval"] if name not in set(names.get(other, ())))
    if lists:
        sets = {split: names[split] for split in SPLIT_KEYS if names.get(split)}
        return {split: [VocSource(whole.xml_folder, whole.image_folder, lists[split], sets[split])] for split in sets}
    sources: Sources = {}
    for path in sub_folders(whole.xml_folder):
        split = next((split for split, keys in SPLIT_KEYS.items() if path.name.lower() in keys), None)
        if split and has_xml(path):
            images = whole.image_folder / path.name
            sources.setdefault(split, []).append(VocSource(path, images if images.is_dir() else whole.image_folder))
    return sources if "train" in sources else {"train": [whole]}


def _whole_set(folder: Path) -> VocSource | None:
    """Return the XML files and images of a folder, or None if it is no set."""
    children = {path.name.lower(): path for path in sub_folders(folder)}
    for name in XML_FOLDERS:
        if name in children and has_xml(children[name]):
            return VocSource(children[name], _image_folder(folder, children[name]))
    if _has_suffix(folder, (".xml",)):
        return VocSource(folder, folder if _has_suffix(folder, IMAGE_SUFFIXES) else _image_folder(folder, folder))
    return None


def _image_folder(folder: Path, xml_folder: Path) -> Path:
    """Return the folder of images in ``folder``, itself included; ``xml_folder`` if there is none."""
    children = {path.name.lower(): path for path in sub_folders(folder)}
    named = next((children[name] for name in IMAGE_FOLDERS if name in children), None)
    return named or (folder if _has_suffix(folder, IMAGE_SUFFIXES) else xml_folder)


def _lists(folder: Path) -> dict[str, Path]:
    """Return the lists of images of a set by name: train, val, trainval, test."""
    for place in _list_folders(folder):
        files = {path.stem.lower(): path for path in sorted(place.glob("*.txt"))}
        if found := {name: files[name] for name in (*SPLIT_KEYS, "trainval") if name in files}:
            return found
    return {}


def list_files(folder: Path) -> list[Path]:
    """Return all lists of images of a set, of whatever name."""
    return [path for place in _list_folders(folder) for path in sorted(place.glob("*.txt"))]


def _list_folders(folder: Path) -> list[Path]:
    """Return the folders that may hold the lists of images of a set."""
    sets = [path for path in sub_folders(folder) if path.name.lower() == "imagesets"]
    mains = [path for one in sets for path in sub_folders(one) if path.name.lower() == "main"]
    return [*mains, *sets]


def _join(sets: list[Sources]) -> Sources:
    return {split: joined for split in SPLIT_KEYS if (joined := [one for found in sets for one in found.get(split, [])])}


def sub_folders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` that are not hidden, sorted."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def _has_suffix(folder: Path, suffixes: tuple[str, ...]) -> bool:
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not is_hidden(entry.name))
        return any(Path(name).suffix.lower() in suffixes for name in names)


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else name
