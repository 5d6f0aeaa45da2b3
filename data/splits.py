"""The annotations of all splits, from COCO files or YOLO labels."""

from pathlib import Path
from typing import Literal

from data.annotations import Annotations
from data.coco import check_root, read_coco
from data.join import check_same_classes, join_annotations
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
    splits = {split: read_split(root, split, *paths) for split, paths in files.items() if paths != (None, None)}
    for annotations in splits.values():
        check_same_classes(splits["train"], annotations)
    return splits


def needs_data_yaml(root: Path, files: Files) -> bool:
    """Return True for a folder that has none of the COCO annotation files, and has YOLO labels."""
    names = [name for given, _ in files.values() for name in ([given] if isinstance(given, str) else given or [])]
    return root.is_dir() and not any((root / name).exists() for name in names) and is_yolo_folder(root)


def read_split(root: Path, split: str, names: Paths | None, folders: Paths | None) -> Annotations:
    """Read and join the COCO annotation files ``names`` of a split, whose images are in ``folders``."""
    if names is None or folders is None:
        raise ValueError(f"data.{split}_annotations and data.{split}_images belong together; give both or neither")
    names = [names] if isinstance(names, str) else names
    folders = [folders] if isinstance(folders, str) else folders
    if not names or len(folders) not in (1, len(names)):
        raise ValueError(
            f"data.{split}_annotations has {plural(len(names), 'file')} and data.{split}_images "
            f"{plural(len(folders), 'folder')}; give a folder for each file, or one for all"
        )
    folders = folders * len(names) if len(folders) == 1 else folders
    return join_annotations([read_coco(root / name, root / folder) for name, folder in zip(names, folders)])
