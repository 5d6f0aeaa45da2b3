"""Know a detection set from a set of labeled images, for messages about data that were given to the wrong program."""

import os
from itertools import islice
from pathlib import Path

from data.yolo_yaml import LABELS
from detector.files import is_hidden
from detector.imaging.read import IMAGE_SUFFIXES

OF_DETECTION = {"images", "labels", "annotations"}  # folders that are no classes
MOST_ENTRIES = 1000  # of a folder that are looked at


def detection_sign(root: Path) -> str | None:
    """Return what shows that ``root`` is a detection set, as "annotations/train.json"; None if nothing does.

    A folder with class folders in ``root/train`` is none, whatever else it has.
    """
    if root.suffix in (".yaml", ".yml") and root.is_file():
        return "the entries of a data.yaml"
    if not root.is_dir() or set(_folders(root / "train")) - OF_DETECTION:
        return None
    patterns = ("annotations/*.json", *LABELS)
    path = next((path for pattern in patterns for path in sorted(islice(root.glob(pattern), MOST_ENTRIES))), None)
    return None if path is None else str(path.relative_to(root))


def class_folders(root: Path) -> list[str]:
    """Return the folders of images that ``root``, or ``root/train``, has for classes; none if there are fewer than two."""
    folder = root / "train" if (root / "train").is_dir() else root
    names = [name for name in _folders(folder) if name not in OF_DETECTION and _has_image(folder / name)]
    return names if len(names) > 1 else []


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in islice(entries, MOST_ENTRIES) if entry.is_dir() and not is_hidden(entry.name))


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in islice(entries, MOST_ENTRIES))
