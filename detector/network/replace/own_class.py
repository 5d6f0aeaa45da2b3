"""The class of a block by its import path, and its arguments, resolved by jsonargparse as those of LightningCLI."""

import importlib
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
from torch import nn

from detector.network.replace.entries import Entry
from detector.option_errors import option_error
from detector.text import nearest_names, unknown_name


class BlockFactory:
    """Makes blocks of one class: called with a module, it returns the block that takes its place.

    Calls ``Class(module, **init_args)``, or ``Class.like(module, **init_args)`` if the class has this class method.
    Raises ValueError for a class that cannot be imported or is no ``nn.Module``, and for wrong arguments.
    """

    def __init__(self, entry: Entry, name: str) -> None:
        self.name = name
        self.class_path, self.arguments = entry["layer"]["class_path"], entry["layer"]["init_args"]
        self.block_class = load_class(self.class_path, name)
        like: Any = getattr(self.block_class, "like", None)
        self.has_like = inspect.ismethod(like)
        self._create: Callable[..., nn.Module] = like if self.has_like else self.block_class
        self._parser = self._argument_parser()
        self._values = self._parse()

    @property
    def call_text(self) -> str:
        """The call as code, for messages."""
        arguments = "".join(f", {key}={value!r}" for key, value in self.arguments.items())
        return f"{self.class_path}{'.like' if self.has_like else ''}(module{arguments})"

    def __call__(self, module: nn.Module) -> nn.Module:
        """Return a new block in place of ``module``, which it may keep and use."""
        try:
            block = self._create(module, **self._instantiate())
        except Exception as error:
            raise ValueError(
                f"{self.name}: {self.call_text} failed for the {type(module).__name__}{_short(module)}: "
                f"{error_text(error, self.block_class)}; its first argument is the replaced module itself"
            ) from error
        if not isinstance(block, nn.Module):
            raise ValueError(f"{self.name}: {self.call_text} returned a {type(block).__name__}; expected an nn.Module")
        return block

    def _argument_parser(self) -> jsonargparse.ArgumentParser:
        """Return a parser for the arguments after the first, which is the replaced module."""
        if not _takes_a_module(self._create):
            raise ValueError(
                f"{self.name}: {self.class_path}{inspect.signature(self._create)} takes no module; its first argument must "
                "be the module that is replaced, or give it a class method like(module)"
            )
        parser = self._parser_without({1})
        try:
            parser.parse_object({})
        except Exception as error:
            # Those that jsonargparse finds behind **names are given by the class itself.
            required = re.findall(r"\w+", str(error).partition("required:")[2])
            return self._parser_without({1, *required} - set(inspect.signature(self._create).parameters))
        return parser

    def _parser_without(self, skip: set[int | str]) -> jsonargparse.ArgumentParser:
        parser = jsonargparse.ArgumentParser(exit_on_error=False, add_help=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.has_like:
                parser.add_method_arguments(self.block_class, "like", skip=skip, fail_untyped=False)
            else:
                parser.add_class_arguments(self.block_class, skip=skip, fail_untyped=False)
        return parser

    def _parse(self) -> jsonargparse.Namespace:
        known = list(dict.fromkeys(action.dest.partition(".")[0] for action in self._parser._actions))
        self._unchecked = {name: value for name, value in self.arguments.items() if name not in known}
        if self._unchecked and not _takes_any_name(self._create, known):
            self._refuse(next(iter(self._unchecked)), known)
        _check_imported(self.arguments, self.name)  # before jsonargparse imports what they name
        try:
            values = self._parser.parse_object({name: v for name, v in self.arguments.items() if name in known})
        except Exception as error:  # those of jsonargparse, and whatever an import in the values raises
            message = re.sub(r'^Parser key "(.+?)":', r"\1:", option_error(str(error), known))
            raise ValueError(f"{self.name}: init_args: {' '.join(message.split())}") from None
        _check_imported(values, self.name)
        return values

    def _refuse(self, argument: str, known: list[str]) -> None:
        """Raise ValueError for an ``argument`` that the class does not take."""
        message = _unknown_argument(self.class_path, argument, known)
        if argument == next(iter(inspect.signature(self._create).parameters)):
            message = (
                f"{argument} is the replaced module, which {self.class_path} is given anyway; leave it out in "
                "init_args, and in a configuration write the entry under model.replace, not model.overrides"
            )
        raise ValueError(f"{self.name}: {message}")

    def _instantiate(self) -> dict[str, Any]:
        """Return the given arguments, with new instances of the modules among them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older name, which jsonargparse 4.40 has, is deprecated
            values = self._parser.instantiate_classes(self._values.clone()).as_dict() | self._unchecked
        return {name: values[name] for name in self.arguments}


def load_class(class_path: str, name: str) -> type[nn.Module]:
    """Import the class of a block. Raises ValueError, beginning with ``name``, if it is missing or no ``nn.Module``."""
    module_name, _, class_name = class_path.rpartition(".")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", class_path):
        raise ValueError(f"{name}: class_path {class_path!r} is no import path; expected one as my_blocks.LargeKernel")
    if not module_name:
        raise ValueError(
            f"{name}: class_path {class_path!r} has no module; give the whole import path, as my_blocks.{class_path} for "
            "the file my_blocks.py beside the configuration"
        )
    if module_name.split(".")[0] in sys.stdlib_module_names or "__main__" in module_name.split("."):
        remedy = "put the class into a file of its own" if "__main__" in module_name else "its modules have no layers"
        raise ValueError(f"{name}: class_path {class_path!r} is not imported: {module_name} cannot hold a block; {remedy}")
    module = _import(module_name, class_path, name)
    members = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, nn.Module)]
    if not hasattr(module, class_name):
        message = unknown_name(f"class of {module_name} ({getattr(module, '__file__', 'no file')}):", class_name, members)
        raise ValueError(f"{name}: {message}")
    value = getattr(module, class_name)
    if not inspect.isclass(value) or not issubclass(value, nn.Module):
        kind = "class, but no subclass of torch.nn.Module" if inspect.isclass(value) else f"{type(value).__name__}"
        raise ValueError(f"{name}: class_path {class_path!r} is a {kind}, and is not called; expected a torch.nn.Module")
    return value


def _import(module_name: str, class_path: str, name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{name}: {class_path} cannot be imported: {module_name} needs {error.name}: {error}"
            ) from error
        folders = search_folders()
        files = {path.stem: path for folder in folders for path in sorted(folder.glob("*.py"))}
        near = nearest_names(module_name, files)
        hint = f"did you mean {' or '.join(f'{stem} ({files[stem]})' for stem in near)}? " if near else ""
        raise ValueError(
            f"{name}: {class_path} cannot be imported: there is no module {error.name}; {hint}Put its file beside the "
            f"configuration, or into a folder of PYTHONPATH. Looked in {', '.join(map(str, folders))}"
        ) from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name}: importing {module_name} failed: {error_text(error)}") from error


def search_folders() -> list[Path]:
    """Return the folders in which Python looks for modules, without those of installed packages and of Python itself."""
    folders = [Path(entry or ".").resolve() for entry in sys.path]
    own = [f for f in folders if f.is_dir() and not is_installed(f) and not f.is_relative_to(Path(sys.base_prefix, "lib"))]
    return list(dict.fromkeys(own))


def is_installed(path: Path) -> bool:
    """Return True for a path inside of an installed package, or of Python's own library."""
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or path.is_relative_to(Path(inspect.__file__).resolve().parent)


def error_text(error: BaseException, block_class: type | None = None) -> str:
    """Return an error of foreign code in a line, with the place in the file of ``block_class`` that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    file = None if block_class is None else sys.modules[block_class.__module__].__dict__.get("__file__")
    frame = next((f for f in reversed(frames) if f.filename == file), frames[-1] if frames else None)
    place = "" if frame is None or frame.filename.startswith("<") else f" ({frame.filename}, line {frame.lineno})"
    return f"{type(error).__name__}: {_one_line(error)}{place}"


def _takes_a_module(create: Any) -> bool:
    try:
        parameters = list(inspect.signature(create).parameters.values())
    except (TypeError, ValueError):
        return True  # a signature that Python cannot tell
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return bool(parameters) and parameters[0].kind in kinds


def _takes_any_name(create: Any, known: list[str]) -> bool:
    """Return True if the signature ends in ``**names`` that go to no other function, so that their names are not known."""
    parameters = inspect.signature(create).parameters.values()
    has_rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return has_rest and set(known) <= {parameter.name for parameter in parameters}


def _unknown_argument(class_path: str, argument: str, known: list[str]) -> str:
    if not known:
        return f"{class_path} takes no arguments besides the module; leave out {argument!r} in init_args"
    return unknown_name(f"argument of {class_path}:", argument, known)


def _check_imported(value: Any, name: str) -> None:
    """Raise ValueError if the arguments name a class that is no ``nn.Module``, or a function of another kind."""
    if isinstance(value, jsonargparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            load_class(value["class_path"], f"{name}: init_args")
        for entry in value.values():
            _check_imported(entry, name)
    elif isinstance(value, list | tuple):
        for entry in value:
            _check_imported(entry, name)
    elif callable(value) and not (inspect.isclass(value) and issubclass(value, nn.Module)):
        module = getattr(value, "__module__", None) or ""
        if inspect.isclass(value) or module not in ("torch", "torch._C._nn", "torch.nn.functional"):
            raise ValueError(f"{name}: init_args has {value!r}; expected classes of torch.nn.Module or torch's functions")


def _short(module: nn.Module) -> str:
    text = re.sub(r"\s+", " ", module.extra_repr())
    return f" ({text[:100]})" if text else ""


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:500] or type(error).__name__
