"""Image files beside those of the splits that are in no split."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from data.check.findings import MAX_EXAMPLES, Finding, Splits
from detector.files import is_hidden
from detector.imaging.read import IMAGE_SUFFIXES
from detector.text import plural


def unlisted_findings(splits: Splits) -> Iterator[Finding]:
    """Yield a note on the image files that no split has, in the folders where images of the splits are."""
    used: dict[str, set[str]] = {}
    real_path = lru_cache(os.path.realpath)
    for annotations in splits.values():
        for index in range(len(annotations)):
            folder, name = os.path.split(annotations.image_path(index))
            used.setdefault(real_path(folder), set()).add(name)
    unlisted = [
        os.path.join(folder, name) for folder in sorted(used) for name in sorted(_image_names(Path(folder)) - used[folder])
    ]
    if unlisted:
        images = plural(len(unlisted), "image file is", "image files are")
        text = f"{images} beside those of the splits and in none of them, so left out"
        yield Finding("note", "all", text, unlisted[:MAX_EXAMPLES])


def _image_names(folder: Path) -> set[str]:
    names = os.listdir(folder) if folder.is_dir() else []
    return {name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)}
