"""The annotations of all splits, from COCO files or YOLO labels."""

from pathlib import Path
from typing import Literal

from data.annotations import Annotations
from data.coco import check_root, read_coco
from data.join import check_same_classes, join_annotations
from data.other_sets import class_folders
from data.shapes.write import SHAPES, draw_shapes
from data.yolo import read_yolo
from data.yolo_yaml import is_yolo_folder, propose_data_yaml
from detector.text import plural

Split = Literal["train", "val", "test"]
Paths = str | list[str]
Files = dict[str, tuple[Paths | None, Paths | None]]  # annotation files and image folders of each split

COCO_TRAIN, COCO_VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
COCO_FILES: Files = {"train": (COCO_TRAIN, "train2017"), "val": (COCO_VAL, "val2017"), "test": (None, None)}


def read_splits(root: Path, files: Files) -> dict[str, Annotations]:
    """Read the annotations of each split: YOLO labels if ``root`` is a YAML file, else COCO files.

    Raises ValueError if a file has faults, or if the splits list different categories.
    """
    if root.suffix in (".yaml", ".yml"):
        if differing := [split for split in files if files[split] != COCO_FILES[split]]:
            raise ValueError(
                f"data.root is {root}, which names the {differing[0]} data itself; leave out "
                f"data.{differing[0]}_annotations and data.{differing[0]}_images, which are for COCO-format sets"
            )
        return read_yolo(root)
    if needs_data_yaml(root, files):
        raise ValueError(propose_data_yaml(root))
    if root == SHAPES:
        draw_shapes(SHAPES)  # does nothing if the set is there
    check_root(root, is_coco=files["train"][0] == COCO_TRAIN or root.name == "coco")
    given = {split: paths for split, paths in files.items() if paths != (None, None)}
    for split, paths in given.items():  # all of them before any is read, which takes long for a large set
        check_paths(root, split, *as_lists(split, *paths))
    splits = {split: read_split(root, split, *paths) for split, paths in given.items()}
    for annotations in splits.values():
        check_same_classes(splits["train"], annotations)
    return splits


def needs_data_yaml(root: Path, files: Files) -> bool:
    """Return True for a folder that has YOLO labels, if COCO's own annotation files are to be read and it has none."""
    if files["train"][0] != COCO_TRAIN:
        return False
    names = [name for given, _ in files.values() for name in ([given] if isinstance(given, str) else given or [])]
    return root.is_dir() and not any((root / name).exists() for name in names) and is_yolo_folder(root)


def read_split(root: Path, split: str, names: Paths | None, folders: Paths | None) -> Annotations:
    """Read and join the COCO annotation files ``names`` of a split, whose images are in ``folders``."""
    names, folders = as_lists(split, names, folders)
    check_paths(root, split, names, folders)
    folders = folders * len(names) if len(folders) == 1 else folders
    return join_annotations([read_coco(root / name, root / folder) for name, folder in zip(names, folders)])


def as_lists(split: str, names: Paths | None, folders: Paths | None) -> tuple[list[str], list[str]]:
    """Return the annotation files and image folders of a split as lists. Raises ValueError if their numbers do not fit."""
    if names is None or folders is None:
        raise ValueError(f"data.{split}_annotations and data.{split}_images belong together; give both or neither")
    names = [names] if isinstance(names, str) else names
    folders = [folders] if isinstance(folders, str) else folders
    if not names or len(folders) not in (1, len(names)):
        raise ValueError(
            f"data.{split}_annotations has {plural(len(names), 'file')} and data.{split}_images "
            f"{plural(len(folders), 'folder')}; give a folder for each file, or one for all"
        )
    return names, folders


def check_paths(root: Path, split: str, names: list[str], folders: list[str]) -> None:
    """Raise ValueError, with the option to set, if an annotation file or image folder of a split does not exist."""
    files, images = f"data.{split}_annotations", f"data.{split}_images"
    set_it = f"relative to data.root ({root}), or correct data.root"
    for path in (root / name for name in names):
        if path.is_dir():
            swapped = f" ({files} and {images} may be swapped)" if any((root / f).is_file() for f in folders) else ""
            raise ValueError(f"{files}: {path} is a folder; expected a COCO annotation file{swapped}{_json_files(root)}")
        if not path.is_file():
            is_default = names == [COCO_FILES[split][0]]
            problem = (
                f"its default, COCO's own {path}, does not exist" if is_default else f"there is no annotation file {path}"
            )
            raise ValueError(f"{files}: {problem} (looked from {Path.cwd()}); set {files}, {set_it}{_found(root)}")
    for folder in (root / name for name in folders):
        if folder.is_file():
            raise ValueError(f"{images}: {folder} is a file; expected a folder of images")
        if not folder.is_dir():
            raise ValueError(
                f"{images}: there is no image folder {folder} (looked from {Path.cwd()}); set {images}, {set_it}"
            )


def _found(root: Path) -> str:
    """Return what ``root`` has in place of annotations, as the end of a message: folders of classes, or JSON files."""
    if (names := class_folders(root)) and not any(root.glob("annotations/*.json")):
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return (
            f". {root} has images by class ({shown}) and no boxes: pre-train a backbone on it, with "
            f"python pretrain.py --data.root {root}"
        )
    return _json_files(root)


def _json_files(root: Path) -> str:
    """Return the JSON files under ``root``, as the end of a message."""
    files = [path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))]
    shown = ", ".join(str(path.relative_to(root)) for path in files[:6])
    return f". In {root} are {shown}{' ...' if len(files) > 6 else ''}" if files else f". {root} has no JSON file"
