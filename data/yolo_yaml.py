"""Reads data.yaml files, which describe sets with YOLO labels, and proposes one for folders that lack it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detector.files import read_yaml

SPLIT_KEYS = {  # the keys that a split may have; the first one is ours
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "class.names", "predefined_classes.txt")
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LABELS = ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")
IMAGE_FOLDERS = ("images/{}", "{}/images", "{}")  # of a split, as exporters name them


@dataclass(frozen=True)
class YoloFile:
    """The content of a data.yaml."""

    path: Path
    folder: Path  # that the splits are relative to
    class_names: list[str]
    splits: dict[str, Any]  # "train", "val", "test": a folder, a list file, or a list of these; None if not given


def load_data_yaml(path: Path) -> YoloFile:
    """Read a data.yaml. Raises ValueError with the key and the remedy for every mistake."""
    if not path.is_file():
        raise ValueError(f"data.root: there is no file {path} (looked from {Path.cwd()}); give a data.yaml or a folder")
    content = read_yaml(path, "expected train, val and names")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {str(content)[:80]!r}; expected a mapping with train, val and names")
    if "kpt_shape" in content:
        raise ValueError(f"{path}: describes key points (kpt_shape), whose labels have other columns; give labels of boxes")
    names = _read_names(content, path)
    splits = {split: _split_value(content, split, path) for split in SPLIT_KEYS}
    folder = _root(content, path, splits["train"])
    for split in ("train", "val"):
        # Without any folder for it, the validation split is held out of the training images.
        if not splits[split] and (split == "train" or _proposed_folder(folder, split)):
            raise ValueError(_missing_split(split, content, path, folder))
    return YoloFile(path, folder, names, splits)


def has_yolo_labels(folder: Path) -> bool:
    """Return True if ``folder`` has a data.yaml, or label files in folders named for them."""
    has_file = any(True for name in YAML_FILES for _ in _find(folder, name))
    return has_file or any(True for pattern in LABELS for _ in folder.glob(pattern))


def is_yolo_folder(folder: Path) -> bool:
    """Return True if ``folder`` has a data.yaml, a file with the names of classes, or label files."""
    return has_yolo_labels(folder) or any(True for name in NAME_FILES for _ in _find(folder, name))


def propose_data_yaml(folder: Path) -> str:
    """Return what to do with a folder for which ``is_yolo_folder`` is True: the data.yaml to give, or its text."""
    if yamls := [path for name in YAML_FILES for path in _find(folder, name)]:
        return f"data.root: {folder} has YOLO labels, described by {yamls[0].name}; give that file: --data.root {yamls[0]}"
    names_file = next((path for name in NAME_FILES for path in _find(folder, name)), None)
    names = ["NAME OF CLASS 0", "NAME OF CLASS 1"] if names_file is None else read_names(names_file)
    split_folders = {split: _proposed_folder(folder, split) for split in SPLIT_KEYS}
    split_folders["train"] = split_folders["train"] or ("images" if (folder / "images").is_dir() else "FOLDER OF IMAGES")
    lines = [f"{split}: {value}" for split, value in split_folders.items() if value]
    if not split_folders["val"]:
        lines.insert(1, "val: FOLDER OF OTHER IMAGES  # or a text file with a path a line; images that train does not have")
    lines.append("names: " + yaml.safe_dump(names, default_flow_style=True, width=10_000, allow_unicode=True).strip())
    text = "\n".join(f"    {line}" for line in lines)
    has = names_file.relative_to(folder) if names_file else "label files (.txt)"
    path = folder / "data.yaml"
    return (
        f"data.root: {folder} has {has} but no data.yaml, which YOLO labels need; write {path} with\n{text}\n"
        f"  and give it: --data.root {path}"
    )


def read_names(path: Path) -> list[str]:
    """Return the names of the classes from a file with one a line."""
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _find(folder: Path, name: str) -> list[Path]:
    """Return the files of this name in the folder, one level below it, or beside the labels."""
    patterns = (name, f"*/{name}", f"labels/*/{name}")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]


def _proposed_folder(folder: Path, split: str) -> str | None:
    names = [pattern.format(key) for key in SPLIT_KEYS[split] for pattern in IMAGE_FOLDERS]
    return next((name for name in names if (folder / name).is_dir()), None)


def _split_value(content: dict[str, Any], split: str, path: Path) -> Any:
    given = {key: content[key] for key in SPLIT_KEYS[split] if content.get(key)}
    values = list(given.values())
    if any(value != values[0] for value in values):
        raise ValueError(f"{path}: {' and '.join(map(repr, given))} name different images; keep one of them")
    return values[0] if values else None


def _missing_split(split: str, content: dict[str, Any], path: Path, folder: Path) -> str:
    remedy = "give it a folder of images or a text file with their paths"
    if proposed := _proposed_folder(folder, split):
        remedy = f"there is a folder {folder / proposed}: add the line '{split}: {proposed}'"
    return f"{path}: has no {split!r}, only {', '.join(map(str, content))}; {remedy}"


def _read_names(content: dict[str, Any], path: Path) -> list[str]:
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        names = [f"class_{n}" for n in range(count)]
    if isinstance(names, str) and os.path.isfile(path.parent / names):  # as in darknet's files
        names = read_names(path.parent / names)
    if isinstance(names, dict):
        names = _names_by_number(names, path)
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: names is {names!r}; expected the names of the classes, a list or a mapping from 0 on")
    if odd := [name for name in names if isinstance(name, bool) or not isinstance(name, str | int | float)]:
        raise ValueError(f"{path}: names has {odd[0]!r}; expected text (quote yes, no, on and off, which YAML turns)")
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: names lists one name twice: {names}; rename or merge the classes")
    if count is not None and count != len(names):
        raise ValueError(f"{path}: nc is {count!r}, but names has {len(names)}; make them agree")
    return names


def _names_by_number(names: dict[Any, Any], path: Path) -> list[Any]:
    """Return the values of a mapping from class numbers to names, in the order of the numbers, which may be quoted."""
    by_number = {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in names.items()}
    numbers = range(len(names))
    if len(by_number) < len(names) or any(type(key) is not int or key not in numbers for key in by_number):
        raise ValueError(
            f"{path}: names has the keys {list(names)[:10]}; expected 0 to {len(names) - 1}, each once (labels count the "
            "classes from 0, and classes that are not used need a name, too)"
        )
    return [by_number[number] for number in numbers]


def _root(content: dict[str, Any], path: Path, train: Any) -> Path:
    """Return the folder that splits are relative to: ``path``, relative to the file, to here, or to datasets/.

    If the file's own folder has the name of ``path``, the file's own folder is tried last.
    """
    root = content.get("path")
    candidates = [path.parent]
    if root:
        text = str(root) if os.path.isdir(path.parent / str(root)) else str(root).replace("\\", "/")
        candidates = [path.parent / text, Path(text), Path("datasets", text)]
        if path.resolve().parent.name == Path(text).name:
            candidates.append(path.parent)
    for candidate in candidates:
        if os.path.isdir(candidate):
            return candidate
    tried = " or ".join(dict.fromkeys(str(candidate.resolve()) for candidate in candidates))
    remedy = "correct path, or get the data set first"
    if isinstance(train, str) and os.path.exists(path.parent / train):
        remedy = f"{train} is beside the file: remove the line with path"
    raise ValueError(f"{path}: path is {root!r}, but there is no folder {tried}; {remedy}")
