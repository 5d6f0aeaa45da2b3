"""Several annotation files as one, and a check that two files have the same categories."""

from dataclasses import replace
from os.path import commonpath, join, relpath
from pathlib import Path
from typing import Protocol

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from data.annotations import Annotations
from detector.text import decode_name, encode_name


class ListedClasses(Protocol):
    """A file that lists categories: ``class_names`` in the order of ``category_ids``."""

    @property
    def name(self) -> str: ...

    @property
    def category_ids(self) -> list[int]: ...

    @property
    def class_names(self) -> list[str]: ...


def join_annotations(parts: list[Annotations]) -> Annotations:
    """Join several files to one. Their categories are united; the same id must have the same name in all files.

    If image ids appear in more than one file, all images are renumbered from 1, and predictions have the new ids. The same
    applies to annotation ids. Both are logged.
    """
    if len(parts) == 1:
        return parts[0]
    class_names = _unite_categories(parts)
    category_ids = sorted(class_names)
    folder = Path(commonpath([part.folder.resolve() for part in parts]))
    first_objects = np.cumsum([0] + [len(part.ids) for part in parts])  # index of each part's first object
    joined = Annotations(
        name=" + ".join(part.name for part in parts),
        folder=folder,
        image_ids=_unique_ids([part.image_ids for part in parts], "image"),
        sizes=np.concatenate([part.sizes for part in parts]),
        file_names=np.array([name for part in parts for name in _names_below(folder, part)]),
        offsets=np.concatenate([[0], *(part.offsets[1:] + first for part, first in zip(parts, first_objects))]),
        ids=_unique_ids([part.ids for part in parts], "annotation"),
        bboxes=np.concatenate([part.bboxes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        crowds=np.concatenate([part.crowds for part in parts]),
        labels=np.concatenate([np.searchsorted(category_ids, part.category_ids)[part.labels] for part in parts]),
        category_ids=category_ids,
        class_names=[class_names[id_] for id_ in category_ids],
        upright=parts[0].upright,
        remarks=tuple(replace(one, text=f"{part.name}: {one.text}") for part in parts for one in part.remarks),
    )
    rank_zero_info(joined.summary())
    return joined


def check_same_classes(train: ListedClasses, other: ListedClasses) -> None:
    """Raise a ValueError that shows the differences unless both files have the same categories, by id and name."""
    train_names = dict(zip(train.category_ids, train.class_names))
    other_names = dict(zip(other.category_ids, other.class_names))
    ids = sorted(train_names.keys() | other_names.keys())
    differing = [id_ for id_ in ids if train_names.get(id_) != other_names.get(id_)]
    if differing:
        rows = [(id_, train_names.get(id_, "(none)"), other_names.get(id_, "(none)")) for id_ in differing[:20]]
        lines = "\n".join(f"    id {id_}: {train_name} | {other_name}" for id_, train_name, other_name in rows)
        raise ValueError(
            f"{train.name} and {other.name} list different categories, so labels would be mixed up; give both the same "
            f"list, unused ones included. {len(differing)} differ (first file | second file):\n{lines}"
        )


def _unite_categories(parts: list[Annotations]) -> dict[int, str]:
    """Return the name of each category id; raise ValueError if an id has two names, or a name two ids."""
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for part in parts:
        for id_, name in zip(part.category_ids, part.class_names):
            if names.setdefault(id_, name) != name or ids.setdefault(name, id_) != id_:
                raise ValueError(
                    f"{part.name} cannot be joined with {parts[0].name}: it has category {id_} {name!r}, and a file before "
                    f"it has {id_} {names[id_]!r} or {name!r} under the id {ids.get(name, id_)}; give both the same ids"
                )
    return names


def _names_below(folder: Path, part: Annotations) -> list[bytes]:
    """Return the file names of ``part`` relative to ``folder``; absolute names stay."""
    path = relpath(part.folder.resolve(), folder)
    return [encode_name(join(path, decode_name(name)).removeprefix("./")) for name in part.file_names]


def _unique_ids(ids: list[np.ndarray], kind: str) -> np.ndarray:
    """Return the ids of all files, or new ones from 1 if files share some, or if some have text and some numbers."""
    num_ids = sum(map(len, ids))
    if len({part.dtype.kind for part in ids}) > 1:
        rank_zero_info(f"the {kind} ids are text in some files and numbers in others; renumbered from 1")
        return np.arange(1, num_ids + 1)
    joined = np.concatenate(ids)
    if len(np.unique(joined)) == num_ids:
        return joined
    rank_zero_info(f"{len(ids)} files share {kind} ids; renumbered from 1, in the files' order")
    return np.arange(1, num_ids + 1)
