"""Read, write and find files: atomic writes, errors that name the file and the remedy, and the files of a folder."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LFS_POINTER = b"version https://git-lfs.github.com/"  # the start of a file that Git LFS has not downloaded
# Written by systems, viewers and archives beside the user's files; names that start with a dot are hidden as well.
SYSTEM_NAMES = {
    "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path beside ``path``, and rename it to ``path`` when the block ends.

    Missing folders are made. The content is synced to the disk before the rename: after a crash of the machine the file is
    either the old one or the whole new one. If the block raises, an existing file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


class DuplicateKeyError(ValueError):
    """A key that a YAML or JSON file gives twice; of its values all but the last would be lost."""


def read_json(path: Path, kind: type, expected: str) -> Any:
    """Return the content of a JSON file, a ``kind`` (dict or list). Raises ValueError with ``path`` and ``expected``."""
    try:
        content = load_json(path.read_text(encoding="utf-8-sig"))  # sig: some editors write a byte order mark
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give {expected}") from None
    except DuplicateKeyError as error:
        raise ValueError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); give {expected}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: the JSON holds a {type(content).__name__}, not a {kind.__name__}; give {expected}")
    return content


def refuse_lfs_pointer(path: Path) -> None:
    """Raise ValueError for a file that Git LFS has not downloaded: it holds a few lines of text instead."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path}: is a Git LFS pointer instead of the file; run git lfs pull")


def load_json(text: str | bytes) -> Any:
    """Return the content of a JSON text. Raises DuplicateKeyError, or another ValueError if it is not JSON."""
    return json.loads(text, object_pairs_hook=_unique_items)


def _unique_items(items: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(items)
    if len(content) < len(items):
        names = [name for name, _ in items]
        name = next(name for name in names if names.count(name) > 1)
        owner = f"the entry with id {content['id']!r}" if "id" in content and name != "id" else f"an entry with {names[:6]}"
        raise DuplicateKeyError(f"the key {name!r} is given {names.count(name)} times in {owner}; keep one")
    return content


def read_yaml(path: Path, remedy: str) -> Any:
    """Return the content of a YAML file in UTF-8. Raises ValueError with ``path`` and ``remedy`` for another file."""
    try:
        text = path.read_text(encoding="utf-8")
        check_unique_keys(text)
        return yaml.safe_load(text)
    except DuplicateKeyError as error:
        raise ValueError(f"{path}: {error}") from None
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: another encoding, or a date that does not exist
        raise ValueError(f"{path}: is not YAML ({error}); {remedy}") from None


def check_unique_keys(text: str) -> None:
    """Raise DuplicateKeyError if a mapping of the YAML ``text`` gives a key twice. Merge keys (``<<``) may repeat keys."""
    loader = _UniqueKeyLoader(text)
    try:
        loader.get_single_node()
    finally:
        loader.dispose()


def unique_key_loader(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that calls ``load`` on a YAML text after ``check_unique_keys``."""

    def load_checked(text: str) -> Any:
        if ":" in text:  # a mapping; most values of options are none
            check_unique_keys(text)
        return load(text)

    return load if load.__name__ == load_checked.__name__ else load_checked


class _UniqueKeyLoader(yaml.SafeLoader):
    """Compares keys as written in the file, before merge keys add theirs."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = self.construct_object(key), key.start_mark.line + 1
            if name in lines:
                at = f"lines {lines[name]} and {line}" if lines[name] != line else f"line {line}"
                raise DuplicateKeyError(f"the key {name!r} is given twice, in {at}; keep one")
            lines[name] = line
        return node


def check_output(path: Path, overwrite: bool) -> None:
    """Raise ValueError if no file can be written to ``path``, or if one exists and ``overwrite`` is False."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} already exists; choose another name, or give --overwrite")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; make it first")


@dataclass
class FolderFiles:
    """The files in a folder and its sub-folders."""

    files: list[Path] = field(default_factory=list)  # sorted; each real file once, links are followed
    hidden: list[Path] = field(default_factory=list)  # hidden files, and all files in hidden folders; see ``is_hidden``
    repeated: list[Path] = field(default_factory=list)  # links to files and folders that are in ``files`` already


def walk_folder(folder: Path) -> FolderFiles:
    """Return the files in ``folder`` and its sub-folders.

    Of several names of one file (links), the real name counts, or the first one. A link to a folder that contains the link
    or ``folder`` is not followed. The name of ``folder`` itself may be hidden.
    """
    folder_files = FolderFiles()
    links: list[Path] = []
    seen: set[tuple[int, int]] = set()  # device and number of each folder and file
    _walk(folder, folder_files, links, seen)
    above = {os.path.realpath(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    for link in links:  # grows while linked folders have links themselves
        inside_itself = Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link))
        if not link.is_dir():
            _add_file(link, folder_files, seen)
        elif inside_itself or os.path.realpath(link) in above or _identity(link) in seen:
            folder_files.repeated.append(link)
        else:
            _walk(link, folder_files, links, seen)
    return FolderFiles(sorted(folder_files.files), sorted(folder_files.hidden), sorted(folder_files.repeated))


def is_hidden(name: str) -> bool:
    """Return True for the name of a file or folder that a system or viewer has written: ``._a.jpg``, ``Thumbs.db``, ..."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def real_files(paths: Iterable[Path]) -> list[Path]:
    """Return ``paths`` without those that lead to a file that an earlier one leads to."""
    first_paths: dict[Any, Path] = {}
    for path in paths:
        first_paths.setdefault(_identity(path), path)
    return list(first_paths.values())


def _walk(folder: Path, folder_files: FolderFiles, links: list[Path], seen: set[Any]) -> None:
    """Add the files below ``folder``, and its links to ``links``."""
    seen.add(_identity(folder))
    for at, folders, names in os.walk(folder):
        below = [*folders, *names]
        folders[:] = sorted(name for name in folders if not is_hidden(name) and not os.path.islink(os.path.join(at, name)))
        seen.update(_identity(Path(at, name)) for name in folders)
        for name in sorted(below):
            path = Path(at, name)
            if is_hidden(name):
                inner = (Path(inner, file) for inner, _, files in os.walk(path) for file in files)
                folder_files.hidden += inner if path.is_dir() else [path]
            elif path.is_symlink():
                links.append(path)
            elif not path.is_dir():
                _add_file(path, folder_files, seen)


def _add_file(path: Path, folder_files: FolderFiles, seen: set[Any]) -> None:
    (folder_files.repeated if _identity(path) in seen else folder_files.files).append(path)
    seen.add(_identity(path))


def _identity(path: Path) -> Any:
    """Return device and number of a file, the same for all its links; its path if the system gives no number."""
    try:
        status = os.stat(path)
    except OSError:  # a link to nothing
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
