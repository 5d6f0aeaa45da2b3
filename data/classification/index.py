"""The images of a split and their classes as flat arrays: no Python object for an image."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.text import decode_name


@dataclass(frozen=True)
class ImageIndex:
    """The paths and labels of I images in F folders. Paths are bytes, as the file system has them, in any encoding.

    14 million images take about 0.4 GB. Worker processes that are forked share the arrays: reading them writes nothing,
    where Python objects have counters.
    """

    root: Path  # folders are relative to it
    folders: list[bytes]  # F paths
    folder_ids: np.ndarray  # (I,) whole numbers, 0..F-1
    labels: np.ndarray  # (I,) whole numbers, 0..C-1
    names: np.ndarray  # (bytes of all file names,) uint8, one name after the other
    ends: np.ndarray  # (I,) whole numbers, the end of each name in ``names``

    def __len__(self) -> int:
        return len(self.ends)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def relative_path(self, index: int) -> bytes:
        """Return the path of an image relative to ``root``, with the separators of the system."""
        start = int(self.ends[index - 1]) if index else 0
        name = self.names[start : int(self.ends[index])].tobytes()
        return os.path.join(self.folders[self.folder_ids[index]], name)

    def name(self, index: int) -> str:
        """Return the path of an image relative to ``root``, for messages."""
        return decode_name(self.relative_path(index))

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(self.relative_path(index))

    def counts(self, num_classes: int) -> np.ndarray:
        """Return the number of images of each class, (C,)."""
        return np.bincount(self.labels, minlength=num_classes)


class IndexBuilder:
    """Builds an ImageIndex from runs of images of one folder and class."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[bytes, int] = {}
        self._runs = array("q")  # folder id, label and number of images of each run
        self._names = bytearray()
        self._lengths = array("H")  # of the names, in bytes; systems allow 255 (1020 in UTF-8 on Windows)

    def add(self, folder: bytes, label: int, names: Sequence[bytes]) -> None:
        """Add images in ``folder``, a path relative to the root."""
        if names:
            self._runs.extend((self._folders.setdefault(folder, len(self._folders)), label, len(names)))
            self._names += b"".join(names)
            self._lengths.extend(map(len, names))

    def build(self) -> ImageIndex:
        """Return the index of all images, in the order in which they were added."""
        folder_ids, labels, counts = np.frombuffer(self._runs, np.int64).reshape(-1, 3).T
        return ImageIndex(
            root=self.root,
            folders=list(self._folders),
            folder_ids=np.repeat(_smallest(folder_ids), counts),
            labels=np.repeat(_smallest(labels), counts),
            names=np.frombuffer(self._names, np.uint8),
            ends=_cumulative(np.frombuffer(self._lengths, np.uint16), len(self._names)),
        )


def _smallest(values: np.ndarray) -> np.ndarray:
    """Return whole numbers, 0 or more, in the type with the fewest bytes."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _cumulative(lengths: np.ndarray, total: int) -> np.ndarray:
    return np.cumsum(lengths, dtype=np.min_scalar_type(max(total, 1)))
