"""The annotations of all splits, from COCO files, XML files of Pascal VOC, or YOLO labels."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Literal

from data.annotations import Annotations
from data.coco import check_root, read_coco
from data.join import check_same_classes, join_annotations
from data.other_sets import class_folders
from data.shapes.write import DRAWN_SETS
from data.val_split import complete_splits
from data.voc import read_voc
from data.voc_folders import Sources, find_voc, given_source, has_xml, sub_folders
from data.yolo import read_yolo
from data.yolo_yaml import has_yolo_labels, is_yolo_folder, propose_data_yaml
from detector.files import walk_folder
from detector.text import plural

Split = Literal["train", "val", "test"]
Paths = str | list[str]
Files = dict[str, tuple[Paths | None, Paths | None]]  # annotation files and image folders of each split

COCO_TRAIN, COCO_VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
COCO_FILES: Files = {"train": (COCO_TRAIN, "train2017"), "val": (COCO_VAL, "val2017"), "test": (None, None)}
MOST_FILES = 100_000  # of a folder that are counted for a message
FORMATS = """\
  Formats that are read:
    COCO: set data.train_annotations (a JSON file) and data.train_images (a folder), relative to data.root; the same for val
    Pascal VOC: set data.root to the folder that has Annotations (XML files) and JPEGImages, or XML files beside the images;
        for other names set data.train_annotations (a folder of XML files, or a list of images) and data.train_images
    YOLO: set data.root to the data.yaml
  Without a validation set, data.val_split (0.2) of the training images are held out. More: docs/data.md"""


def read_splits(root: Path, files: Files, val_split: float | None = None) -> dict[str, Annotations]:
    """Read the annotations of each split: COCO files, XML files of Pascal VOC, or YOLO labels if ``root`` is a YAML file.

    Data without a validation set get one, ``val_split`` (by default 0.2) of the training images. Raises ValueError if a file
    has faults, if the splits list different categories, or if there are a validation set and ``val_split``.
    """
    return complete_splits(_read_given(root, files, val_split), val_split)


def _read_given(root: Path, files: Files, val_split: float | None) -> dict[str, Annotations]:
    """Read the splits that the data have."""
    kind, is_voc_by_names = set_format(root, files), files["train"][0] == COCO_TRAIN
    options = " and ".join(_given_options(files))
    if kind == "data.yaml" and options:
        raise ValueError(
            f"data.root is {root}, which names the data of all splits itself; leave out {options}, which are for sets in "
            "other formats"
        )
    if kind == "voc" and is_voc_by_names and options:
        raise ValueError(
            f"data.root is {root}, a Pascal VOC set whose splits are found by their names; leave out {options}, or give "
            "data.train_annotations, too (a folder of XML files, or a list of images): then only what is given is read"
        )
    if kind == "data.yaml":
        return read_yolo(root)
    if kind == "yolo":
        raise ValueError(propose_data_yaml(root))
    if kind == "voc":
        return read_voc(root, voc_sources(root, files), root if is_voc_by_names else None)
    return _read_coco(root, files, val_split)


def _read_coco(root: Path, files: Files, val_split: float | None) -> dict[str, Annotations]:
    """Read the splits of a set in COCO format, which is drawn first if it is one of ours."""
    if root in DRAWN_SETS:
        DRAWN_SETS[root](root)  # does nothing if the set is there
    check_root(root, is_coco=root.name == "coco")
    paths_of_splits = given_splits(root, files, val_split)
    for split, paths in paths_of_splits.items():  # all of them before any is read, which takes long for a large set
        check_paths(root, split, *as_lists(split, *paths))
    splits = {split: read_split(root, split, *paths) for split, paths in paths_of_splits.items()}
    for annotations in splits.values():
        check_same_classes(splits["train"], annotations)
    return splits


def set_format(root: Path, files: Files) -> Literal["coco", "data.yaml", "voc", "yolo"]:
    """Return the format of a set; "yolo" is a folder with YOLO labels, which must be given by its data.yaml.

    A folder is that of a COCO set if its annotation files are given, or if it has COCO's own.
    """
    if root.suffix in (".yaml", ".yml"):
        return "data.yaml"
    if files["train"][0] != COCO_TRAIN:
        names = [name for given, _ in files.values() for name in ([given] if isinstance(given, str) else given or [])]
        return "voc" if any(_is_voc(root / name) for name in names) else "coco"
    if not root.is_dir() or root in DRAWN_SETS or any((root / name).exists() for name in (COCO_TRAIN, COCO_VAL)):
        return "coco"
    if has_yolo_labels(root):
        return "yolo"
    if find_voc(root):
        return "voc"
    return "yolo" if is_yolo_folder(root) else "coco"


def _given_options(files: Files) -> list[str]:
    """Return the options for annotations and images that are given, as "data.val_annotations"."""
    return [
        f"data.{split}_{option}"
        for split, paths in files.items()
        for option, path, default in zip(("annotations", "images"), paths, COCO_FILES[split])
        if path not in (default, None)
    ]


def _is_voc(path: Path) -> bool:
    """Return True for a list of images, or a folder with XML files."""
    return path.suffix == ".txt" or (path.is_dir() and has_xml(path))


def voc_sources(root: Path, files: Files) -> Sources:
    """Return the sources of the splits of a Pascal VOC set: those given, else those that are found in ``root``."""
    if files["train"][0] == COCO_TRAIN:
        return find_voc(root)
    sources: Sources = {}
    for split, (names, folders) in files.items():
        names, is_default = [names] if isinstance(names, str) else names, (names, folders) == COCO_FILES[split]
        if not names or is_default:
            continue
        image_folders: list[str] | list[None] | None = [folders] if isinstance(folders, str) else folders
        if image_folders is None or image_folders == [COCO_FILES[split][1]]:
            image_folders = [None]
        elif len(image_folders) not in (1, len(names)):
            as_lists(split, names, folders)  # raises
        for name, folder in zip(names, image_folders * len(names) if len(image_folders) == 1 else image_folders):
            if not (root / name).exists() or not _is_voc(root / name):
                raise ValueError(
                    f"data.{split}_annotations: {root / name} is neither a list of images (.txt) nor a folder of XML files "
                    "(Pascal VOC), as the other splits have; give all splits in one format"
                )
            if folder is not None and not (root / folder).is_dir():
                raise ValueError(f"data.{split}_images: there is no image folder {root / folder} (looked from {Path.cwd()})")
            sources.setdefault(split, []).append(given_source(root / name, None if folder is None else root / folder, root))
    return sources


def given_splits(root: Path, files: Files, val_split: float | None) -> Files:
    """Return the COCO files without those of splits that are not given: null, or the default of val, which does not exist.

    An annotation file whose name has "val" in it is taken for a validation set that the user has forgotten: then the
    default stays, and ``check_paths`` raises. ``val_split`` says that it is not.
    """
    given = {split: paths for split, paths in files.items() if paths != (None, None)}
    is_coco = files["train"] == COCO_FILES["train"] and (root / COCO_TRAIN).exists()
    is_default = given.get("val") == COCO_FILES["val"] and not is_coco
    if is_default and (val_split is not None or not any("val" in path.name.lower() for path in _json_paths(root))):
        del given["val"]
    return given


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
            is_swapped = any((root / folder).is_file() or _is_voc(root / folder) for folder in folders)
            swapped = f" ({files} and {images} may be swapped)" if is_swapped else ""
            raise ValueError(
                f"{files}: {path} is a folder; expected a COCO annotation file, or a folder with XML files of Pascal VOC"
                f"{swapped}{_json_files(root)}"
            )
        if not path.is_file():
            if split == "train" and names == [COCO_TRAIN]:
                raise ValueError(_not_understood(root))
            if names == [COCO_FILES[split][0]]:
                hold_out = f"or set data.val_split to hold out a share of train{_found(root)}"
                raise ValueError(f"{files}: it is not given; set {files}, {set_it}, {hold_out}")
            problem = f"there is no annotation file {path} (looked from {Path.cwd()})"
            raise ValueError(f"{files}: {problem}; set {files}, {set_it}{_found(root)}")
    for folder in (root / name for name in folders):
        if folder.is_file():
            raise ValueError(f"{images}: {folder} is a file; expected a folder of images")
        if not folder.is_dir():
            is_given = folders != [COCO_FILES[split][1]] or names == [COCO_FILES[split][0]]
            problem = f"there is no image folder {folder} (looked from {Path.cwd()})" if is_given else "it is not given"
            raise ValueError(f"{images}: {problem}; set {images}, {set_it}")


def _found(root: Path) -> str:
    """Return what ``root`` has in place of annotations, as the end of a message: folders of classes, or JSON files."""
    if (names := class_folders(root)) and not any(root.glob("annotations/*.json")):
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return (
            f". {root} has images by class ({shown}) and no boxes: pre-train a backbone on it, with "
            f"python pretrain.py --data.root {root}, which checks the images first"
        )
    return _json_files(root)


def _json_files(root: Path) -> str:
    """Return the JSON files under ``root``, and its folders with XML files, as the end of a message."""
    files = [str(path.relative_to(root)) for path in _json_paths(root)]
    files += [f"{path.name} (a folder with XML files)" for path in sub_folders(root) if has_xml(path)]
    shown = ", ".join(files[:6]) + (", ..." if len(files) > 6 else "")
    return f". In {root} {'is' if len(files) == 1 else 'are'} {shown}" if files else f". {root} has no JSON or XML files"


def _json_paths(root: Path) -> list[Path]:
    return [path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))]


def _not_understood(root: Path) -> str:
    """Return the message for a folder without annotations of a known format at a known place."""
    suffixes = Counter(path.suffix or "no suffix" for path in islice(walk_folder(root).files, MOST_FILES))
    shown = ", ".join(f"{number} x {suffix}" for suffix, number in suffixes.most_common(5)) or "no files"
    return f"data.root: {root} has no annotations where they are looked for; in it are {shown}{_found(root)}\n{FORMATS}"
