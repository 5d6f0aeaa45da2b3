"""Configuration files that the command line names: read, and refused with what to give instead."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detector.files import read_yaml
from detector.text import nearest_names


def read_configs(words: Sequence[str]) -> dict[Path, dict[str, Any]]:
    """Return the content of the configuration files that the command line ``words`` name, see ``read_config``."""
    for path in map(Path, _values(words, ("--data",))):
        if path.suffix in (".yaml", ".yml") and path.is_file():
            _refuse_data_yaml(path, read_yaml(path, "give a data.yaml as --data.root"), "--data")
    values = _values(words, ("--config", "-c"))
    return {path: read_config(path) for path in (Path(value) for value in values if not re.search(r"[\n{]|: ", value))}


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a configuration file. Raises ValueError if it is missing, of another kind or no mapping."""
    if not path.is_file():
        raise ValueError(_no_file(path))
    if path.suffix in (".ckpt", ".pt", ".pth", ".safetensors"):
        raise ValueError(
            f"--config {path} is a weights file and not a configuration; the command is "
            "python evaluate.py CKPT --config FILE, or python train.py --config FILE --ckpt_path CKPT"
        )
    content = read_yaml(path, "give a configuration file as --config")
    if not isinstance(content, dict):
        kind = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise ValueError(f"--config {path} {kind}; expected settings, e.g. model: {{variant: dyn_n}}")
    _refuse_data_yaml(path, content, "--config")
    return content


def _values(words: Sequence[str], options: tuple[str, ...]) -> Iterator[str]:
    """Yield the values that the ``options`` have in ``words``."""
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in options and (equals or following):
            yield value if equals else following


def _refuse_data_yaml(path: Path, content: Any, option: str) -> None:
    """Raise ValueError if ``content`` describes YOLO labels."""
    keys = content.keys() if isinstance(content, dict) else set()
    if keys & {"names", "nc"} and keys & {"train", "val", "valid", "test"}:
        raise ValueError(f"{option} {path} describes a data set with YOLO labels; give it as --data.root {path}")


def _no_file(path: Path) -> str:
    problem = "is a folder" if path.is_dir() else f"no such file (looked from {Path.cwd()})"
    folder = path if path.is_dir() else path.parent
    names = sorted(other.name for other in folder.glob("*.yaml"))
    near = names[:5] if path.is_dir() else nearest_names(path.name, names)
    hint = f"; did you mean {' or '.join(str(folder / name) for name in near)}?" if near else ""
    return f"--config {path}: {problem}{hint}"
