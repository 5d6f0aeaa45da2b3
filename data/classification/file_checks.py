"""Checks the image files before training: which cannot be read, and which are copies of each other."""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from data.classification.class_splits import TRAIN, VAL, ClassSplits
from data.classification.index import ImageIndex
from data.images import stored_size
from data.reader import BadImages
from detector.imaging.jpeg import JPEG_END, JPEG_START
from detector.imaging.read import BadImageError, read_file, read_upright
from detector.text import plural

FileCheck = Literal["auto", "all", "none"]
MAX_CHECKED = 20_000  # files that "auto" looks at: a few seconds
CHUNK = 4096  # files that are handed to the threads at a time
START = 4096  # bytes of a file that are compared first
PNG_START, PNG_END = b"\x89PNG", b"\0\0\0\0IEND\xaeB`\x82"
NUM_NAMED = 10  # unreadable files in an error


class FileFacts(NamedTuple):
    """Facts about one image file."""

    size: int  # bytes; -1 if it cannot be used
    digest: int  # of its first bytes
    error: str | None  # why it cannot be used


@dataclass(frozen=True)
class CheckedFiles:
    """The N files that are looked at, as arrays: there may be millions."""

    splits: list[str]
    indexes: list[ImageIndex]  # of the splits
    split_ids: np.ndarray  # (N,) uint8, numbers of the splits
    rows: np.ndarray  # (N,) int64, numbers of the images in their split
    sizes: np.ndarray  # (N,) int64, see FileFacts
    digests: np.ndarray  # (N,) uint64

    def __len__(self) -> int:
        return len(self.rows)

    def index(self, n: int) -> ImageIndex:
        return self.indexes[self.split_ids[n]]

    def path(self, n: int) -> Path:
        return self.index(n).path(int(self.rows[n]))

    def name(self, n: int) -> str:
        return self.index(n).name(int(self.rows[n]))

    def label(self, n: int) -> int:
        return self.index(n).label(int(self.rows[n]))

    def split(self, n: int) -> str:
        return self.splits[self.split_ids[n]]


def check_image_files(splits: ClassSplits, check: FileCheck, on_bad_image: BadImages) -> None:
    """Look at the files of all splits, or of an even sample of them, and name those that cannot be used.

    Looks at the header and the end of each file, and decodes only files that look odd. ``check`` is "all" or "none", or
    "auto" for at most ``MAX_CHECKED`` files. Raises ValueError for bad files; with ``on_bad_image`` "skip" it warns of
    them. Warns of images with the same content in train and val, or in two classes.
    """
    files = _choose_files(splits, check)
    total = sum(map(len, splits.splits.values()))
    if 0 < len(files) < total:
        rank_zero_info(f"checked {len(files)} image files, evenly chosen of {total}; data.check: all checks all of them")
    errors, num_errors = _look_at_files(files)
    if num_errors:
        more = [f"and {num_errors - len(errors)} more"] if num_errors > len(errors) else []
        lines = "".join(f"\n    {line}" for line in errors + more)
        message = f"{plural(num_errors, 'image')} of {len(files)} cannot be used:{lines}"
        if on_bad_image == "raise":
            raise ValueError(f"{message}\n    Restore or remove them, or set data.on_bad_image to skip")
        rank_zero_warn(message)
    _warn_of_copies(files)


def file_facts(path: Path) -> FileFacts:
    """Look at the start and the end of an image file; a file that looks odd is decoded."""
    try:
        stored_size(path)
        with path.open("rb") as file:
            start = file.read(START)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - START, 0))
            end = file.read()
        if not _has_whole_end(start, end, size):
            read_upright(path)
        return FileFacts(size, int.from_bytes(blake2b(start, digest_size=8).digest(), "big"), None)
    except BadImageError as error:
        return FileFacts(-1, 0, str(error))
    except OSError as error:
        return FileFacts(-1, 0, f"{path}: cannot be read ({error.strerror})")


def _has_whole_end(start: bytes, end: bytes, size: int) -> bool:
    """Return True if the last bytes are those of a whole file of ``size`` bytes; False for formats that do not say."""
    if start.startswith(JPEG_START):
        return end.endswith(JPEG_END)
    if start[8:12] == b"WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= size and any(end)
    return start.startswith(PNG_START) and end.endswith(PNG_END)


def _choose_files(splits: ClassSplits, check: FileCheck) -> CheckedFiles:
    counts = [len(index) for index in splits.splits.values()]
    total = sum(counts)
    if check == "none":
        rows = [np.empty(0, np.int64) for _ in counts]
    elif check == "all" or total <= MAX_CHECKED:
        rows = [np.arange(count) for count in counts]
    else:
        rows = [np.linspace(0, count - 1, max(1, count * MAX_CHECKED // total)).astype(np.int64) for count in counts]
    split_ids = np.repeat(np.arange(len(rows), dtype=np.uint8), [len(part) for part in rows])
    sizes, digests = np.full(len(split_ids), -1), np.zeros(len(split_ids), np.uint64)
    return CheckedFiles(list(splits.splits), list(splits.splits.values()), split_ids, np.concatenate(rows), sizes, digests)


def _look_at_files(files: CheckedFiles) -> tuple[list[str], int]:
    """Fill in sizes and digests. Return the first errors, and the number of all."""
    errors, num_errors = [], 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(files), CHUNK):
            chunk = range(first, min(first + CHUNK, len(files)))
            for n, facts in zip(chunk, pool.map(file_facts, map(files.path, chunk))):
                files.sizes[n], files.digests[n] = facts.size, facts.digest
                if facts.error:
                    num_errors += 1
                    errors += [facts.error] if num_errors <= NUM_NAMED else []
    return errors, num_errors


def _warn_of_copies(files: CheckedFiles) -> None:
    """Warn of val images that are also in train, and of images in several classes, by content."""
    shared, contradictory = [], []
    for group in _copies(files):
        in_train = [files.name(n) for n in group if files.split(n) == TRAIN]
        in_val = [files.name(n) for n in group if files.split(n) == VAL]
        if in_train:
            shared += [f"{name} = {in_train[0]}" for name in in_val]
        if len({files.label(n) for n in group}) > 1:
            contradictory.append(" = ".join(map(files.name, group[:3])))
    if shared:
        text = f"{plural(len(shared), 'image is', 'images are')} also in train (the same content)"
        rank_zero_warn(f"val: {text}, so accuracy looks better than it is, e.g. {'; '.join(shared[:3])}")
    if contradictory:
        text = f"{plural(len(contradictory), 'image is', 'images are')} in several classes (the same content)"
        rank_zero_warn(f"{text}, so one of the labels is wrong, e.g. {'; '.join(contradictory[:3])}")


def _copies(files: CheckedFiles) -> Iterator[list[int]]:
    """Yield groups of files with the same content. Only files of one size that begin alike are read in full."""
    order = np.lexsort((files.digests, files.sizes))
    sizes, digests = files.sizes[order], files.digests[order]
    same = (sizes[1:] == sizes[:-1]) & (digests[1:] == digests[:-1]) & (sizes[1:] >= 0)
    starts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]]))  # of runs of equal neighbors
    ends = np.flatnonzero(same & ~np.concatenate([same[1:], [False]])) + 2
    for start, end in zip(starts.tolist(), ends.tolist()):
        groups: dict[bytes, list[int]] = defaultdict(list)
        for n in np.sort(order[start:end]).tolist():
            with suppress(BadImageError):  # removed since then
                groups[blake2b(read_file(files.path(n)), digest_size=16).digest()].append(n)
        yield from (group for group in groups.values() if len(group) > 1)
