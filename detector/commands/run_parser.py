"""The parser of train.py, evaluate.py and pretrain.py, whose errors are one short message."""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from detector.commands.programs import PRETRAIN, TRAIN, Program, check_program, explain_unknown
from detector.config_files import read_configs
from detector.network.replace.block_files import add_import_folders
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
    """The parser of train.py, evaluate.py and pretrain.py. ``family`` is the program whose settings it has."""

    family: Program = TRAIN

    def parse_args(self, args: Any = None, *others: Any, **settings: Any) -> Any:
        """Parse ``args``, by default the command line, after a check of the configuration files."""
        words = sys.argv[1:] if args is None else args
        self._words = words if isinstance(words, list | tuple) else []
        try:
            self._configs = read_configs(self._words)
            check_program(self._configs, self.family)
        except (ValueError, OSError) as error:
            self.error(str(error))
        add_import_folders(path.parent for path in self._configs)  # the user's own classes, beside the configuration
        return super().parse_args(args, *others, **settings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2 and one short message. A parser of a part of the settings raises instead."""
        if not self.exit_on_error:
            super().error(message, ex)
        if "required" in message:
            self.print_usage(sys.stderr)
        words = getattr(self, "_words", [])
        text = class_error(message) or explain_unknown(option_error(message, option_names(self), words), self.family)
        self.exit(2, f"error: {text}{self._source_of_key(text)}\n(--help explains the options)\n")

    def _source_of_key(self, text: str) -> str:
        """Return the configuration files that have the unknown key in ``text``, for the end of a message."""
        match = re.match(r"unknown key ([\w.]+)", text)
        paths = [
            str(path) for path, content in getattr(self, "_configs", {}).items() if match and _has_key(content, match[1])
        ]
        return f"\nthe key is in {', '.join(paths)}" if paths else ""


class PretrainParser(RunParser):
    """The parser of pretrain.py."""

    family = PRETRAIN


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
