"""Which XML file of a Pascal VOC set belongs to which image, and what is left out."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.faults import Faults
from data.remarks import Level, Remark
from data.voc_folders import Sources, VocSource, folder_of_images, list_files
from data.voc_xml import VocFile, VocObject, read_voc_file
from data.yolo_yaml import SPLIT_KEYS
from detector.files import walk_folder
from detector.imaging.read import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from detector.text import plural

MAX_EXAMPLES = 8
FOLDERS_OF_SPLITS = {name for names in SPLIT_KEYS.values() for name in names}


@dataclass(frozen=True)
class Entry:
    """An image of a split and its XML file; None for an image without one."""

    image: Path
    file: VocFile | None

    @property
    def objects(self) -> list[VocObject]:
        return [] if self.file is None else self.file.objects


class VocFolders:
    """The images and XML files of folders by name, each folder and each XML file read once."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._folders: dict[tuple[Path, bool], _Names] = {}
        self._read: dict[Path, VocFile | None] = {}

    def images(self, folder: Path) -> "_Names":
        return self._names(folder, IMAGE_SUFFIXES)

    def xml_files(self, folder: Path) -> "_Names":
        return self._names(folder, (".xml",))

    def read(self, path: Path) -> VocFile | None:
        """Return the content of an XML file; add a fault and return None if it has one."""
        if path not in self._read:
            try:
                self._read[path] = read_voc_file(path)
            except ValueError as error:
                self.faults.add(str(error))
                self._read[path] = None
        return self._read[path]

    def _names(self, folder: Path, suffixes: tuple[str, ...]) -> "_Names":
        key = folder, suffixes == IMAGE_SUFFIXES
        if key not in self._folders:
            self._folders[key] = _Names(folder, suffixes)
        return self._folders[key]


class _Names:
    """The files of a folder and its sub-folders that have one of ``suffixes``, by their names without suffix."""

    def __init__(self, folder: Path, suffixes: tuple[str, ...]) -> None:
        self.folder = folder
        self.by_stem: dict[str, list[Path]] = {}
        self.walked = walk_folder(folder)
        for path in self.walked.files:
            if path.suffix.lower() in suffixes:
                self.by_stem.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)

    @property
    def paths(self) -> list[Path]:
        return [path for paths in self.by_stem.values() for path in paths]

    @cached_property
    def by_folded_stem(self) -> dict[str, list[Path]]:
        folded: dict[str, list[Path]] = {}
        for stem, paths in self.by_stem.items():
            folded.setdefault(_folded(stem), []).extend(paths)
        return folded

    def find(self, stem: str) -> list[Path]:
        """Return the files of this name; if there are none, those whose names differ by case or Unicode form alone."""
        return self.by_stem.get(stem) or self.by_folded_stem.get(_folded(stem), [])


def _folded(stem: str) -> str:
    """Return a name without its case and Unicode form: macOS writes an umlaut as two characters, lists have one."""
    return unicodedata.normalize("NFC", stem).lower()


def split_entries(sources: list[VocSource], files: VocFolders, remarks: list[Remark]) -> list[Entry]:
    """Return the images of a split in the order of their paths; add faults and remarks on files without a partner."""
    entries: dict[Path, Entry] = {}
    for source in sources:
        pairs = _listed(source, files, remarks) if source.list_file else _all_pairs(source, files, remarks)
        for image, path in pairs:
            entries.setdefault(image, Entry(image, None if path is None else files.read(path)))
    found = [entries[image] for image in sorted(entries)]
    if not found and not files.images(sources[0].image_folder).paths:
        files.faults.add(
            f"there are no images for the XML files in {sources[0].xml_folder}: {sources[0].image_folder} has none "
            f"({', '.join(IMAGE_SUFFIXES)}); set data.root to the folder that holds both, or data.train_annotations and "
            "data.train_images to their folders"
        )
    if unlabeled := [entry.image for entry in found if entry.file is None and not files.faults.texts]:
        subject = plural(len(unlabeled), "image has no XML file and counts", "images have no XML files and count")
        text = f"{subject} as without objects; take out what is not labeled yet"
        remarks.append(Remark("warning", text, shown_paths(unlabeled)))
    return found


def _listed(source: VocSource, files: VocFolders, remarks: list[Remark]) -> Iterator[tuple[Path, Path | None]]:
    """Yield image and XML file of each name in the list; add a fault for names without an image."""
    images, xml_files = files.images(source.image_folder), files.xml_files(source.xml_folder)
    missing = []
    for name in dict.fromkeys(source.names):
        paths = xml_files.find(name)
        path = paths[0] if paths else None
        if len(paths) > 1:
            files.faults.add(f"{source.list_file}: {name!r} may be {paths[0]} or {paths[1]}; rename or remove one of them")
        if (image := _image_of(name, path, images, files)) is None:
            missing.append(name)
        else:
            yield image, path
    if missing:
        files.faults.add(
            f"{source.list_file}: there is no image for {missing[0]!r} in {images.folder}; restore it, or remove the name",
            len(missing),
        )
    if repeated := len(source.names) - len(set(source.names)):
        text = f"{source.list_file}: {plural(repeated, 'name is', 'names are')} there more than once; each is taken once"
        remarks.append(Remark("warning", text))


def _all_pairs(source: VocSource, files: VocFolders, remarks: list[Remark]) -> Iterator[tuple[Path, Path | None]]:
    """Yield all images of a source with their XML files; add a remark on XML files without an image."""
    images, xml_files = files.images(source.image_folder), files.xml_files(source.xml_folder)
    paths: dict[Path, Path] = {}
    orphans = []
    for stem, path in ((stem, path) for stem, same in sorted(xml_files.by_stem.items()) for path in same):
        image = _image_of(stem, path, images, files)
        if image is None:
            orphans.append(path)
        elif image in paths:
            files.faults.add(f"{paths[image]} and {path} both belong to {image}; keep one of them")
        else:
            paths[image] = path
    for found in images.by_stem.values():
        for image in found:
            yield image, paths.get(image)
    if orphans:
        subject = plural(len(orphans), "XML file has", "XML files have")
        remarks.append(Remark("warning", f"{subject} no image and cannot be used; restore the images", shown_paths(orphans)))


def _image_of(stem: str, path: Path | None, images: _Names, files: VocFolders) -> Path | None:
    """Return the image of an XML file, or of a name in a list if ``path`` is None; None if there is no image.

    Adds a fault if several images fit.
    """
    found = images.find(stem)
    file = None if path is None or len(found) == 1 else files.read(path)
    named = "" if file is None else Path(file.image_name.replace("\\", "/")).name
    if not found and named:
        found = images.find(Path(stem).with_name(Path(named).stem).as_posix())
    if len(found) > 1:
        found = [image for image in found if image.name == named] or found
    if len(found) > 1:
        shown = ", ".join(image.name for image in found[:3])
        files.faults.add(f"{path or stem} may belong to {shown}; rename or remove all but one of them")
    return found[0] if found else None


def left_out_remarks(
    searched: Path | None, sources: Sources, entries: dict[str, list[Entry]], files: VocFolders
) -> list[Remark]:
    """Return remarks on the images and XML files that belong to no split, and on files that are left out for their names.

    They are those beside lists, in sub-folders beside those of the splits, and XML files anywhere in ``searched``. There,
    lists of images that are not used are named, too.
    """
    every_source = [one for split in sources.values() for one in split]
    whole = [one for one in every_source if not one.list_file]  # their XML files without an image are named already
    used = [path for found in entries.values() for e in found for path in (e.image, e.file.path if e.file else e.image)]
    used += [path for one in whole for path in files.images(one.image_folder).paths]
    used += [path for one in whole for path in files.xml_files(one.xml_folder).paths]
    folders = dict.fromkeys(folder_of_images(one.image_folder) for one in every_source)
    xml_folders = dict.fromkeys([*filter(None, [searched]), *(one.xml_folder for one in every_source if one.list_file)])
    known = _by_real_path(used).keys()
    images, xml_files = (
        [path for real, path in _by_real_path(paths).items() if real not in known]
        for paths in (
            [path for folder in folders for path in files.images(folder).paths],
            [path for folder in xml_folders for path in files.xml_files(folder).paths],
        )
    )
    remarks = []
    if images or xml_files:
        counts = [(images, plural(len(images), "image")), (xml_files, plural(len(xml_files), "XML file"))]
        subject = " and ".join(text for paths, text in counts if paths)
        verb = "is" if len(images) + len(xml_files) == 1 else "are"
        text = f"{subject} {verb} in no list or folder of a split and left out"
        remarks.append(Remark("note", text, shown_paths([*images, *xml_files])))
    remarks += [] if searched is None else _unused_lists(searched, whole)
    for folder in folders:
        remarks += _remarks_of_folder(files.images(folder))
    return remarks


def _unused_lists(searched: Path, sources: list[VocSource]) -> list[Remark]:
    """Return a remark on the lists of images beside ``sources``, which are in ``searched`` and read without a list."""
    folders = dict.fromkeys(path for one in sources for path in (one.xml_folder, one.xml_folder.parent))
    if not (lists := [path for folder in folders for path in list_files(folder)]):
        return []
    subject = plural(len(lists), "list of images is", "lists of images are")
    if any(path.parent == searched and path.name.lower() in FOLDERS_OF_SPLITS for path in folders):
        return [Remark("note", f"{subject} not used, as the folders are the splits", shown_paths(lists))]
    text = f"{subject} not used, as none is named train.txt or trainval.txt: all images are for training"
    return [Remark("warning", text, shown_paths(lists))]


def _remarks_of_folder(names: _Names) -> list[Remark]:
    """Return remarks on the hidden images, links and images of other formats in a folder of images."""
    walked = names.walked
    others = [path for path in walked.files if path.suffix.lower() in OTHER_IMAGE_SUFFIXES]
    hidden = [path for path in walked.hidden if path.suffix.lower() in IMAGE_SUFFIXES]
    formats = f"of a format that is not read ({', '.join(sorted({path.suffix for path in others}))}); convert to PNG or JPEG"
    kinds: tuple[tuple[Level, list[Path], str, str, str], ...] = (
        ("warning", others, "image is", "images are", f", being {formats}"),
        ("note", hidden, "hidden image file is", "hidden image files are", ""),
        ("note", walked.repeated, "link to what is there already is", "links to what is there already are", ""),
    )
    return [
        Remark(level, f"{names.folder}: {plural(len(paths), one, many)} left out{reason}", shown_paths(paths))
        for level, paths, one, many, reason in kinds
        if paths
    ]


def _by_real_path(paths: list[Path]) -> dict[tuple[str, str], Path]:
    """Return ``paths`` by folder, links resolved, and name: the same file may be reached by several paths."""
    folders = {folder: os.path.realpath(folder) for folder in {path.parent for path in paths}}
    return {(folders[path.parent], path.name): path for path in paths}


def shown_paths(paths: list[Path]) -> tuple[str, ...]:
    return tuple(map(str, sorted(paths)[:MAX_EXAMPLES]))
