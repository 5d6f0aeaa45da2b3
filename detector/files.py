"""Files that are whole or as they were, whenever the process ends."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give the path of a file beside ``path`` to write, and make it ``path`` when the block ends. Folders are made.

    What is written is on the disk first, or a crash of the machine could leave the new name with nothing in it. If the block
    raises, for want of space say, the file that was there stays.
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


def read_json(path: Path, kind: type, what: str) -> Any:
    """Return the content of a JSON file, a ``kind`` (dict or list); errors ask for ``what``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give {what}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); give {what}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: the JSON holds a {type(content).__name__}, not a {kind.__name__}; give {what}")
    return content
