"""Lists the images in the class folders of a split, and counts what is left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data.remarks import Level, Remark
from detector.files import is_hidden
from detector.imaging.read import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from detector.text import decode_name, plural

NUM_EXAMPLES = 4
READ = frozenset(map(str.encode, IMAGE_SUFFIXES))
OTHER_IMAGES = frozenset(map(str.encode, OTHER_IMAGE_SUFFIXES))
IMAGE, FOLDER = "image", "folder"
LEFT_OUT: dict[str, tuple[Level, str, str, str]] = {  # by kind: level of the remark, one, many, and the rest of the sentence
    "unread": ("warning", "image is", "images are", "left out, being of a format that is not read; convert to PNG or JPEG"),
    "outside": ("warning", "image is", "images are", "left out, lying beside the class folders and not in one"),
    "repeated": ("warning", "folder is", "folders are", "left out, being a link to one that is read elsewhere"),
    "hidden": ("note", "hidden file or folder is", "hidden files or folders are", "left out"),
    "other": ("note", "file that is not an image is", "files that are not images are", "left out"),
}


class FolderScan:
    """The class folders directly in ``folder``, and the images in them. A class has the images at any depth.

    Paths are bytes, relative to ``folder``. Links are followed, except those that lead back into ``folder`` or above it. A
    folder that several links lead to is read once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._bytes = folder, os.fsencode(folder)
        self._real = os.path.realpath(self._bytes)
        self._read: set[tuple[int, int]] = set()  # device and number of each folder that has been read
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self.broken_links: list[bytes] = []  # with names of images

    def class_folders(self) -> dict[str, bytes]:
        """Return the folder of each class, by name, in the order of the names. Raises ValueError for two of one name."""
        images, folders = self._list(b"")
        for image in images:
            self._leave_out("outside", image)
        by_name: dict[str, bytes] = {}
        for folder in folders:
            name = unicodedata.normalize("NFC", folder.decode("utf-8", "backslashreplace"))  # text for every file format
            if name in by_name:
                raise ValueError(
                    f"{self.folder}: two folders are called {name!r}, with accents in different forms; join them"
                )
            by_name[name] = folder
        return dict(sorted(by_name.items()))

    def images(self, folder: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield each folder in ``folder``, itself included, that has images, and their names, sorted."""
        stack = [folder]
        while stack:
            at = stack.pop()
            if not self._is_first_time(at):
                self._leave_out("repeated", at)
                continue
            names, folders = self._list(at)
            if names:
                yield at, names
            stack += reversed(folders)

    def num_outside(self) -> int:
        """Return the number of images beside the class folders."""
        return self._counts["outside"]

    def remarks(self) -> list[Remark]:
        """Return a remark for each kind of what has been left out so far."""
        return [
            Remark(level, f"{plural(self._counts[kind], one, many)} {text}", tuple(self._examples[kind]))
            for kind, (level, one, many, text) in LEFT_OUT.items()
            if self._counts[kind]
        ]

    def _list(self, folder: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the names of the images directly in ``folder``, and the paths of its folders, both sorted."""
        names, folders = [], []
        try:
            with os.scandir(os.path.join(self._bytes, folder)) as entries:
                for entry in entries:
                    kind = self._kind(entry, folder)
                    if kind == IMAGE:
                        names.append(entry.name)
                    elif kind == FOLDER:
                        folders.append(os.path.join(folder, entry.name))
                    elif kind:
                        self._leave_out(kind, os.path.join(folder, entry.name))
        except OSError as error:
            path = os.fsdecode(os.path.join(self._bytes, folder))
            raise ValueError(f"{path}: the folder cannot be read ({error.strerror})") from None
        return sorted(names), sorted(folders)

    def _kind(self, entry: "os.DirEntry[bytes]", folder: bytes) -> str:
        """Return IMAGE, FOLDER, the kind of what is left out, or "" for a link to nothing."""
        if is_hidden(decode_name(entry.name)):
            return "hidden"
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        if is_folder:
            return "repeated" if entry.is_symlink() and self._is_inner(entry.path) else FOLDER
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in READ and entry.is_symlink() and not is_file:
            self.broken_links.append(os.path.join(folder, entry.name))
            return ""
        if not is_file:  # a pipe or the like: opening it could wait forever
            return "other"
        return IMAGE if suffix in READ else "unread" if suffix in OTHER_IMAGES else "other"

    def _is_inner(self, link: bytes) -> bool:
        """Return True for a link to a folder in the scanned one, which is read at its own place, or to one that holds it."""
        target, separator = os.path.realpath(link), os.sep.encode()
        below = target if target.endswith(separator) else target + separator
        return target.startswith(self._real + separator) or (self._real + separator).startswith(below)

    def _is_first_time(self, folder: bytes) -> bool:
        status = os.stat(os.path.join(self._bytes, folder))
        identity = status.st_dev, status.st_ino
        is_first = identity not in self._read
        self._read.add(identity)
        return is_first

    def _leave_out(self, kind: str, path: bytes) -> None:
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < NUM_EXAMPLES:
            examples.append(decode_name(path))
