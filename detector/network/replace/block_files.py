"""The Python files that own blocks came from: remembered in checkpoints, and found again without PYTHONPATH."""

import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from detector.network.replace.entries import Entry
from detector.network.replace.generators import isolated_generators
from detector.network.replace.own_class import is_installed, load_class

BlockFiles = dict[str, dict[str, str]]  # module -> {"path": of its file, "sha256": of the file's content}
PACKAGE = Path(__file__).resolve().parents[2]  # detector/


def add_import_folders(folders: Iterable[Path]) -> None:
    """Let Python import modules from ``folders``, after all places where it looks already."""
    for folder in folders:
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))


def import_blocks(entries: Iterable[Entry], remembered: Mapping[str, Mapping[str, str]] | None = None) -> BlockFiles:
    """Import the classes of ``entries``, and return the files of their modules, without those of installed packages.

    A module that Python does not find is taken from its ``remembered`` file, if this is still the same file: a checkpoint
    of unknown origin must not choose what is run. Warns if a module has another content than the remembered file. Raises
    ValueError, with what is missing, if there is no such file.
    """
    files: BlockFiles = {}
    remembered = remembered or {}
    for number, entry in enumerate(entries):
        class_path = entry["layer"]["class_path"]
        module = class_path.rpartition(".")[0]
        if module in remembered and not _is_importable(module):
            _add_remembered(module, class_path, remembered[module])
        with isolated_generators():  # a module may draw numbers when it is imported
            load_class(class_path, f"replace[{number}]")
        path = getattr(sys.modules[module], "__file__", None)
        if path and not is_installed(Path(path).resolve()) and not Path(path).resolve().is_relative_to(PACKAGE):
            files[module] = {"path": str(Path(path).resolve()), "sha256": _sha256(Path(path))}
            _warn_if_changed(module, files[module], remembered.get(module))
    return files


def _warn_if_changed(module: str, now: Mapping[str, str], remembered: Mapping[str, str] | None) -> None:
    if remembered is not None and remembered["sha256"] != now["sha256"]:
        warnings.warn(f"the code of {module} is not that of the training any more: {now['path']} differs", stacklevel=3)


def without_folders(files: Mapping[str, Mapping[str, str]]) -> BlockFiles:
    """Return ``files`` with the names of the files alone, for weights that are given to others."""
    return {module: {**facts, "path": Path(facts["path"]).name} for module, facts in files.items()}


def _is_importable(module: str) -> bool:
    if module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _add_remembered(module: str, class_path: str, facts: Mapping[str, str]) -> None:
    """Make ``module`` importable from its file of the training. Raises ValueError if the file is gone or has changed."""
    path = Path(facts["path"])
    parts = module.split(".")
    folder = path.parents[len(parts)] if path.name == "__init__.py" else path.parents[min(len(parts), len(path.parents)) - 1]
    problem = None
    if not path.is_absolute() or not path.is_file():
        problem = "is not here"
    elif path.stem not in (parts[-1], "__init__") or _sha256(path) != facts["sha256"]:
        problem = "has changed since"
    if problem:
        raise ValueError(
            f"the block {class_path} cannot be imported: Python finds no module {module}, and its file in training, {path}, "
            f"{problem}. Put the file of {module} into a folder of PYTHONPATH (PYTHONPATH=FOLDER python ...); train.py and "
            "evaluate.py also take it from beside a --config"
        )
    add_import_folders([folder])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
