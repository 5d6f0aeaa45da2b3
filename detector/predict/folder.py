"""The output folder of a prediction, and how it is recognized."""

from pathlib import Path

ANNOTATED_FOLDER = "pictures"  # the name on disk stays as in earlier versions
CROPS_FOLDER = "crops"
PREDICTIONS = "predictions.json"
DESCRIPTION = "detections of "  # begins the description in predictions.json
MARK = f'{{"info": {{"description": "{DESCRIPTION}'  # the first characters of every predictions.json


def output_of(path: Path, out: Path | None = None) -> Path | None:
    """Return the folder of annotated images or crops that holds ``path``, links resolved; None if no run has written it.

    ``out`` is the output folder of this run, which need not exist.
    """
    out_folder = None if out is None else out.resolve()
    for folder in path.resolve().parents:
        if folder.name in (ANNOTATED_FOLDER, CROPS_FOLDER) and (
            folder.parent == out_folder or is_output_folder(folder.parent)
        ):
            return folder
    return None


def is_output_folder(folder: Path) -> bool:
    """Return True for a folder that ``python -m detector predict`` has written into."""
    try:
        with (folder / PREDICTIONS).open(encoding="utf-8") as file:
            return file.read(len(MARK)) == MARK
    except (OSError, UnicodeDecodeError):
        return False
