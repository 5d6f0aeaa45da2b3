"""Set aside the report of a run folder whose results are about to change, so that it is not taken for the new ones."""

from pathlib import Path

from detector.runs.folder import FIGURES, REPORT


def set_aside_report(folder: Path) -> dict[Path, Path]:
    """Rename report.html and figures/ in ``folder`` to report-old.html and figures-old/; return new names by old names.

    Nothing is replaced: where these names are taken, they get a number, report-old-2.html. Without a report.html, figures/
    stays: it may be the user's.
    """
    if not (folder / REPORT).exists():
        return {}
    existing = [path for path in (folder / REPORT, folder / FIGURES) if path.exists()]
    suffix, number = "old", 2
    while any(_renamed(path, suffix).exists() for path in existing):
        suffix, number = f"old-{number}", number + 1
    return {path: path.rename(_renamed(path, suffix)) for path in existing}


def set_aside_message(renamed: dict[Path, Path]) -> str:
    """Return what ``set_aside_report`` has renamed, and how to write a new report."""
    names = ", ".join(f"{old.name} is now {new.name}" for old, new in renamed.items())
    folder = next(iter(renamed)).parent
    return f"the report in {folder} is of earlier results: {names}. For a new one: python -m detector report {folder}"


def _renamed(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.stem}-{suffix}{path.suffix}")
