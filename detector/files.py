"""Read and write files: atomic writes, and errors that name the file and the remedy."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path beside ``path``, and rename it to ``path`` when the block ends.

    Missing folders are made. The content is synced to the disk before the rename: after a crash of the machine the file is
    either the old one or the whole new one. If the block raises, an existing file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_json(path: Path, kind: type, expected: str) -> Any:
    """Return the content of a JSON file, a ``kind`` (dict or list). Raises ValueError with ``path`` and ``expected``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give {expected}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); give {expected}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: the JSON holds a {type(content).__name__}, not a {kind.__name__}; give {expected}")
    return content


def read_yaml(path: Path, remedy: str) -> Any:
    """Return the content of a YAML file in UTF-8. Raises ValueError with ``path`` and ``remedy`` for another file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: another encoding, or a date that does not exist
        raise ValueError(f"{path}: is not YAML ({error}); {remedy}") from None


def check_output(path: Path, overwrite: bool) -> None:
    """Raise ValueError if no file can be written to ``path``, or if one exists and ``overwrite`` is False."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} already exists; choose another name, or give --overwrite")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; make it first")
