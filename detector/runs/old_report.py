"""Set aside the report of a run folder whose results are about to change, so that it is not taken for the new ones."""

from pathlib import Path

from detector.runs.folder import BEST_CHECKPOINT, FIGURES, REPORT, ROUTING_NUMBERS, SUSPECT_LABELS


def set_aside_report(folder: Path) -> dict[Path, Path]:
    """Rename report.html and figures/ in ``folder`` to report-old.html and figures-old/; return new names by old names.

    The same with suspect_labels.json of a report, and with routing.json, the numbers of a checkpoint that a resumed run
    replaces. Nothing is replaced: where these
    names are taken, they get a number, report-old-2.html. Without a report.html, figures/ stays: it may be the user's.
    """
    names = [SUSPECT_LABELS, ROUTING_NUMBERS]
    names = [REPORT, FIGURES, *names] if (folder / REPORT).exists() else names
    existing = [folder / name for name in names if (folder / name).exists()]
    suffix, number = "old", 2
    while any(_renamed(path, suffix).exists() for path in existing):
        suffix, number = f"old-{number}", number + 1
    return {path: path.rename(_renamed(path, suffix)) for path in existing}


def set_aside_message(renamed: dict[Path, Path]) -> str:
    """Return what ``set_aside_report`` has renamed, and how to write a new report."""
    names = ", ".join(f"{old.name} is now {new.name}" for old, new in renamed.items())
    folder = next(iter(renamed)).parent
    commands = [f"python -m benchmarks.routing {folder / BEST_CHECKPOINT}"] if folder / ROUTING_NUMBERS in renamed else []
    commands += (
        [f"python -m detector report {folder}"] if {folder / REPORT, folder / SUSPECT_LABELS} & renamed.keys() else []
    )
    return f"these files in {folder} are of earlier results: {names}. For new ones: {', then '.join(commands)}"


def _renamed(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.stem}-{suffix}{path.suffix}")
