"""Write splits without the images that are also in train, in the format of the set, for ``python -m data check --clean``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.annotations import Annotations
from data.faults import Faults
from data.leaks import also_in_train
from data.splits import Files, set_format, voc_sources
from data.voc_folders import VocSource, listed_names, set_of_images
from data.voc_pairs import Entry, VocFolders, split_entries
from data.yolo_yaml import load_data_yaml
from detector.files import atomic_write
from detector.text import plural

CONFIG = "clean.yaml"  # the section ``data`` of a configuration


def write_clean_splits(splits: dict[str, Annotations], root: Path, files: Files, folder: Path) -> list[str]:
    """Write the splits that share images with train, without these, into ``folder``; return lines on them and their use.

    They are COCO files, lists of images of a Pascal VOC set, or lists of images with a ``data.yaml`` for YOLO labels.
    ``clean.yaml`` names them: a configuration file that goes behind that of the set, whose ``root`` and ``files`` are given.
    """
    shared = {split: also_in_train(splits["train"], part) for split, part in splits.items() if split != "train"}
    shared = {split: indices for split, indices in shared.items() if len(indices)}
    if not shared:
        return ["no split shares images with train: nothing to clean"]
    folder.mkdir(parents=True, exist_ok=True)
    kept = {split: np.setdiff1d(np.arange(len(splits[split])), indices) for split, indices in shared.items()}
    if empty := [split for split, indices in kept.items() if not len(indices)]:
        return [
            f"wrote nothing: all images of {' and '.join(empty)} are in train; give other images, or leave the split out"
        ]
    kind = set_format(root, files)
    if kind == "voc":
        paths, section = _write_voc(splits, voc_sources(root, files), kept, folder)
    elif kind == "data.yaml":
        paths, section = _write_yolo(splits, root, kept, folder)
    else:
        paths, section = _write_coco(splits, kept, folder)
    content = "; it has boxes only, no segmentations or key points" if kind == "coco" else ""
    lines = [
        f"wrote {paths[split]}: {split} without the {plural(len(shared[split]), 'image')} of train, "
        f"{plural(len(kept[split]), 'image')} left{content}"
        for split in paths
    ]
    if section is None:
        names = " and ".join(splits[split].name for split in kept)
        reason = f"the XML files of {names} are in no folder Annotations, which a list of images needs"
        return [f"wrote nothing: {reason}; move the images that the report names out of the split"]
    _write(folder / CONFIG, yaml.safe_dump({"data": section}, sort_keys=False, allow_unicode=True))
    options = ", ".join(f"--data.{name}" for name in section)
    return [
        *lines,
        f"use it: --config {folder / CONFIG} behind your other --config. It sets {options}, so do not give these",
    ]


def _write_coco(
    splits: dict[str, Annotations], kept: dict[str, np.ndarray], folder: Path
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write a COCO file for each of the ``kept`` splits; return the files, and the section ``data`` that names them."""
    paths, section = {split: folder / f"{split}.json" for split in kept}, {}
    for split, path in paths.items():
        _write(path, json.dumps(splits[split].subset(kept[split]).ground_truth()) + "\n")
        section[f"{split}_annotations"] = str(path.resolve())
        section[f"{split}_images"] = str(splits[split].folder.resolve())
    return paths, section


def _write_yolo(
    splits: dict[str, Annotations], root: Path, kept: dict[str, np.ndarray], folder: Path
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write a list of images for each of the ``kept`` splits, and a data.yaml with these and the other splits."""
    file = load_data_yaml(root)
    paths = {split: folder / f"{split}.txt" for split in kept}
    content: dict[str, Any] = {"path": str(file.folder.resolve())}
    content |= {split: value for split, value in file.splits.items() if value}
    for split, path in paths.items():
        images = [str(splits[split].image_path(index).absolute()) for index in kept[split].tolist()]
        _write(path, "".join(f"{image}\n" for image in images))
        content[split] = str(path.resolve())
    data_yaml = folder / "data.yaml"
    text = yaml.safe_dump(content | {"names": file.class_names}, sort_keys=False, allow_unicode=True)
    _write(data_yaml, text)
    return paths, {"root": str(data_yaml.resolve())}


def _write_voc(
    splits: dict[str, Annotations], sources: dict[str, list[VocSource]], kept: dict[str, np.ndarray], folder: Path
) -> tuple[dict[str, Path], dict[str, Any] | None]:
    """Write lists of the images of all splits; return those of the ``kept`` ones, and the section ``data`` with all.

    A split gets a list for each set that its images are in. The section is None if a list cannot name the XML files.
    """
    files, section = VocFolders(Faults("")), {}
    texts: dict[Path, str] = {}
    for split, split_sources in sources.items():
        entries = split_entries(split_sources, files, [])
        chosen = kept.get(split, np.arange(len(entries))).tolist()
        names = _names_by_set([entries[index] for index in chosen])
        if names is None:
            return {}, None
        lists = {folder / (f"{split}.txt" if n == 1 else f"{split}_{n}.txt"): one for n, one in enumerate(names, start=1)}
        texts |= {path: _list_text(names[one]) for path, one in lists.items()}
        section[f"{split}_annotations"] = [str(path.resolve()) for path in lists]
        section[f"{split}_images"] = [str(one.image_folder.resolve()) for one in lists.values()]
    for path, text in texts.items():
        _write(path, text)
    return {split: folder / f"{split}.txt" for split in kept}, section


def _list_text(paths: list[Path]) -> str:
    """Return a list of ``paths``, without their suffixes unless these are needed to read a name: "photo 1.png"."""
    names = [path.with_suffix("").as_posix() for path in paths]
    lines = names if listed_names(names) == tuple(names) else [path.as_posix() for path in paths]
    return "".join(f"{line}\n" for line in lines)


def _names_by_set(entries: list[Entry]) -> dict[VocSource, list[Path]] | None:
    """Return the paths of images in their sets, as a list has them; None if a set is not found from its images."""
    names: dict[VocSource, list[Path]] = {}
    sets: dict[Path, VocSource | None] = {}
    for entry in entries:
        if (parent := entry.image.parent) not in sets:
            sets[parent] = set_of_images(parent)
        found = sets[parent]
        if found is None:
            return None
        path, above = (entry.image, found.image_folder) if entry.file is None else (entry.file.path, found.xml_folder)
        if not path.absolute().is_relative_to(above):
            return None
        names.setdefault(found, []).append(path.absolute().relative_to(above))
    return names


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="surrogateescape")
