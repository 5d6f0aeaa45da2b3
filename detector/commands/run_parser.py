"""The parser of train.py and evaluate.py, whose errors are one short message."""

import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from detector.files import read_yaml
from detector.option_errors import option_error, option_names
from detector.text import nearest_names, unknown_name

# Where the classes that a configuration names by class_path usually come from.
MODULES = {"callbacks": ("lightning.pytorch.callbacks", "detector.callbacks")} | {
    name: (f"lightning.pytorch.{module}",)
    for name, module in {
        "logger": "loggers",
        "plugins": "plugins",
        "profiler": "profilers",
        "strategy": "strategies",
    }.items()
}


class RunParser(LightningArgumentParser):
    """The parser of train.py and evaluate.py."""

    def parse_args(self, args: Any = None, *others: Any, **settings: Any) -> Any:
        """Parse ``args``, by default the command line, after a check of the configuration files."""
        try:
            self._configs = read_configs(sys.argv[1:] if args is None else args)
        except (ValueError, OSError) as error:
            self.error(str(error))
        return super().parse_args(args, *others, **settings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2 and one short message. A parser of a part of the settings raises instead."""
        if not self.exit_on_error:
            super().error(message, ex)
        if "required" in message:
            self.print_usage(sys.stderr)
        text = class_error(message) or type_error(message) or option_error(message, option_names(self))
        self.exit(2, f"error: {text}{self._source_of_key(text)}\n(--help explains the options)\n")

    def _source_of_key(self, text: str) -> str:
        """Return the configuration files that have the unknown key in ``text``, for the end of a message."""
        match = re.match(r"unknown key ([\w.]+)", text)
        paths = [
            str(path) for path, content in getattr(self, "_configs", {}).items() if match and _has_key(content, match[1])
        ]
        return f"\nthe key is in {', '.join(paths)}" if paths else ""


def read_configs(args: Any) -> dict[Path, dict[str, Any]]:
    """Return the content of the configuration files in ``args``. Raises ValueError if one is missing or no mapping."""
    words = list(args) if isinstance(args, list | tuple) else []
    values = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    values += [value for word, value in itertools.pairwise(words) if word in ("--config", "-c")]
    configs = {}
    for path in (Path(value) for value in values if not re.search(r"[\n{]|: ", value)):  # others are YAML themselves
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else f"no such file (looked from {Path.cwd()})"
            folder = path if path.is_dir() else path.parent
            names = sorted(other.name for other in folder.glob("*.yaml"))
            near = names[:5] if path.is_dir() else nearest_names(path.name, names)
            hint = f"; did you mean {' or '.join(str(folder / name) for name in near)}?" if near else ""
            raise ValueError(f"--config {path}: {problem}{hint}")
        if path.suffix in (".ckpt", ".pt", ".pth", ".safetensors"):
            raise ValueError(
                f"--config {path} is a weights file and not a configuration; the command is "
                "python evaluate.py CKPT --config FILE, or python train.py --config FILE --ckpt_path CKPT"
            )
        content = read_yaml(path, "give a configuration file as --config")
        if not isinstance(content, dict):
            kind = "is empty" if content is None else f"holds a {type(content).__name__}"
            raise ValueError(f"--config {path} {kind}; expected settings, e.g. model: {{variant: dyn_n}}")
        configs[path] = content
    return configs


def _has_key(content: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(content, dict) or name not in content:
            return False
        content = content[name]
    return True


def class_error(message: str) -> str | None:
    """Return a short message for a wrong class_path, or for an argument that the class does not have; None for others."""
    key = match[1] if (match := re.match(r'Parser key "(.+?)"', message)) else "class_path"
    if match := re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", message):
        arguments = list(inspect.signature(_import(match[1])).parameters)
        return f"{key}: {unknown_name(f'argument of {match[1]}:', match[2], arguments)}"
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        return f"{key}: {_unknown_class(f'{match[1]}.{match[2]}', (match[1],))}"
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{key}: {_unknown_class(match[1], MODULES.get(key.rpartition('.')[2], ()))}"
    if match := re.search(r"class_path '([^']+)':\s+(No module named \S+)", message):
        return f"{key}: class_path {match[1]!r}: {match[2]}"
    return None


def type_error(message: str) -> str | None:
    """Return a short message for a value of a wrong type, or None for another message."""
    match = re.match(r'Parser key "(.+?)":.*?Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.S)
    if match is None:
        return None
    types = [re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", name) for name in re.split(r", (?![^\[]*\])", match[2])]
    return f"{match[1]} is {match[3].strip()!r}; expected {' or '.join(types).replace('NoneType', 'null')}"


def _import(class_path: str) -> type:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _unknown_class(name: str, modules: Iterable[str]) -> str:
    """Return the message for a class that none of ``modules`` has; the nearest ones are named with their module."""
    paths = {
        member: f"{module}.{member}"
        for module in modules
        for member, value in vars(importlib.import_module(module)).items()
        if (inspect.isclass(value) or inspect.ismodule(value)) and not member.startswith("_")
    }
    classes = [member for member in paths if member[0].isupper()]
    last = name.rpartition(".")[2]
    near = nearest_names(last, classes if last[0].isupper() else paths)
    hint = f"did you mean {' or '.join(paths[member] for member in near)}? " if near else ""
    listed = f"Classes: {', '.join(classes)}" if classes else "give its module, too"
    return f"unknown class {name!r}; {hint}{listed}"
