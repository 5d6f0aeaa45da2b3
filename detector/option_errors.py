"""Messages for unknown options, commands, values and keys: the nearest one, and those that exist."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from inspect import signature
from itertools import takewhile
from typing import Any, NoReturn, ParamSpec, TypeVar

from detector.text import letters, nearest_names, unknown_name
from detector.value_errors import value_error

# What other tools call a setting, and the last part of our names for it. The first name that the command has is proposed.
OTHER_SPELLINGS: Mapping[str, tuple[str, ...]] = (
    dict.fromkeys(("conf", "confthres", "confidence", "scorethr", "score", "threshold"), ("score_threshold",))
    | dict.fromkeys(("iou", "iouthres", "nms", "nmsthreshold"), ("iou_threshold",))
    | dict.fromkeys(("maxdet", "topk"), ("max_detections",))
    | dict.fromkeys(("imgsz", "imgsize", "img", "imagesz", "inputsize", "resolution", "size"), ("image_size",))
    | dict.fromkeys(("epochs", "epoch", "numepochs"), ("max_epochs",))
    | dict.fromkeys(("lr0", "learningrate", "baselr"), ("lr",))
    | {"lrf": ("final_lr_ratio",), "coslr": ("lr_decay",), "wd": ("weight_decay",), "accumulate": ("nominal_batch",)}
    | dict.fromkeys(("batch", "bs"), ("batch_size",))
    | dict.fromkeys(("workers", "jobs"), ("num_workers", "jobs"))
    | dict.fromkeys(("weights", "pretrained", "checkpoint", "ckpt", "pt"), ("CKPT", "checkpoint", "weights", "RUN"))
    | dict.fromkeys(("model", "modelname", "arch", "backbone", "scale"), ("CKPT", "variant"))
    | dict.fromkeys(("data", "dataset", "datapath", "dataroot"), ("root", "config", "ground_truth"))
    | dict.fromkeys(("cfg", "conffile", "configfile", "yaml"), ("config",))
    | dict.fromkeys(("resume", "resumefrom", "continue"), ("ckpt_path",))
    | dict.fromkeys(("device", "devices", "gpu", "gpus", "cuda"), ("devices", "accelerator", "device"))
    | dict.fromkeys(("project", "name", "output", "outputdir", "savedir", "outdir", "logdir"), ("run_dir", "out"))
    | dict.fromkeys(("source", "input", "images", "imagedir"), ("SOURCE", "images"))
    | dict.fromkeys(("amp", "fp16", "bf16", "half"), ("precision", "half", "dtype"))
    | {
        "seed": ("seed_everything",),
        "existok": ("overwrite", "run_dir"),
        "overwrite": ("run_dir",),
        "patience": ("callbacks",),
        "nosave": ("no_images",),
    }
    | {"savecrop": ("crops",), "savetxt": ("csv",)}
)

# What other tools call a command, and the command here.
OTHER_COMMANDS: dict[str, str] = (
    dict.fromkeys(("train", "fit", "finetune", "resume"), "python train.py --config configs/backbone.yaml")
    | dict.fromkeys(("val", "validate", "evaluate", "eval", "test"), "python evaluate.py CKPT --config FILE")
    | dict.fromkeys(("detect", "infer", "inference", "predict"), "python -m detector predict CKPT SOURCE")
    | dict.fromkeys(("convert", "safetensors"), "python -m detector weights CKPT OUT")
    | dict.fromkeys(("onnx", "export"), "python -m detector export CKPT")
    | dict.fromkeys(("benchmark", "speed", "profile"), "python -m benchmarks.inference")
    | dict.fromkeys(("check", "verify"), "python -m data check --config FILE")
    | dict.fromkeys(("show", "view", "visualize", "plot"), "python -m data show --config FILE")
    | dict.fromkeys(("shapes", "draw"), "python -m data.shapes")
    | dict.fromkeys(("summary", "info", "flops", "parameters"), "python -m detector summary VARIANT")
    | dict.fromkeys(("compare", "ablation", "study"), "python -m benchmarks.compare STUDY.yaml")
    | {"report": "python -m detector report RUN", "weights": "python -m detector weights CKPT OUT"}
)

NUMBER = re.compile(r"-?[\d.]+(e-?\d+)?")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class OptionParser(argparse.ArgumentParser):
    """A parser whose errors are one short message. Options are spelled in full: a short form could mean another option."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse ``args`` and exit for unknown ones: each command names its own options."""
        words = sys.argv[1:] if args is None else list(args)
        if not any(isinstance(action, argparse._SubParsersAction) for action in self._actions):
            self._refuse_unknown_options(words)  # first: a value of an unknown option would be taken for an argument
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def parse_own_args(self, args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse the options of this parser in ``args``, and return the other ones, for another parser."""
        return super().parse_known_args(args)

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        words = words[: words.index("--")] if "--" in words else words
        names = [word.partition("=")[0] for word in words if re.match(r"--\w", word)]
        if unknown := [name for name in names if name not in self._option_string_actions]:
            self._exit(unknown_options(unknown, option_names(self)))

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one short message."""
        if "required" in message:
            self.print_usage(sys.stderr)
        self._exit(option_error(message, option_names(self)))

    def _exit(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n(--help explains the options)\n")


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a parser that its help shows, ``--out``, and the names of its arguments, ``CKPT``."""
    return list(dict.fromkeys(_visible_names(parser)))


def _visible_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        if action.option_strings:
            yield from (
                name for name in action.option_strings if name.startswith("--") and not name.endswith(("+", ".help"))
            )
        elif action.choices is None:  # not the command itself
            yield action.metavar if isinstance(action.metavar, str) else action.dest


def option_error(message: str, known: Sequence[str], words: Sequence[str] = ()) -> str:
    """Return the ``message`` of a parser of options with the nearest option, command or value, and those that exist.

    ``known`` are the options of the command, ``--data.root``, and the names of its arguments, ``CKPT``; ``words`` are the
    command line, if its options take one value each. Messages of argparse and jsonargparse about unknown options, keys and
    choices, and about values of a wrong type, are replaced; others are returned as they are.
    """
    if match := re.fullmatch(r"unrecognized arguments: (.*)", message, re.S):
        return _unknown_arguments(match[1].split(), known, words)
    if match := re.search(r"argument (\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
        return _wrong_choice(match[1], match[2], re.findall(r"[^\s',]+", match[3]))
    if match := re.search(r'Parser key "(.+)":\s+Expected a (?:typing\.)?Literal\[(.*?)\]\. Got value: (.*)', message):
        return unknown_name(match[1], match[3], re.findall(r"'([^']*)'", match[2]))
    if match := re.search(r"(?:Group '(.+)' does not accept option|Option) '([^']+)'", message.splitlines()[0]):
        return unknown_options([f"{match[1]}.{match[2]}" if match[1] else match[2]], known)
    return value_error(message) or message


def unknown_options(names: Sequence[str], known: Sequence[str]) -> str:
    """Return the message for unknown options, ``--data.rot``, or keys of a configuration file, ``data.rot``."""
    lines = []
    for name in dict.fromkeys(names):
        is_option = name.startswith("-")
        near = [option if is_option else option.removeprefix("--") for option in _nearest_options(name, known)]
        words = [f"{word} (without --)" if is_option and not word.startswith("-") else word for word in near]
        hint = f"; did you mean {' or '.join(words)}?" if words else ""
        lines.append(f"unknown {'option' if is_option else 'key'} {name}{hint}")
    return "\n".join([*lines, *dict.fromkeys(_siblings(name, known) for name in names)])


def named_arguments(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let ``function`` answer a keyword that it does not have with the nearest one and a list of all.

    The error stays a TypeError, as Python's own: for example "Predictor: unknown argument conf; did you mean
    score_threshold?".
    """
    known = [name for name in signature(function).parameters if name != "self"]
    owner = function.__qualname__.removesuffix(".__call__").removesuffix(".__init__")

    @wraps(function)
    def checked(*args: Parameters.args, **settings: Parameters.kwargs) -> Result:
        for name in settings:
            if name not in known:
                near = _nearest_options(name, known)
                hint = f"; did you mean {' or '.join(near)}?" if near else "."
                raise TypeError(f"{owner}: unknown argument {name}{hint} It takes {', '.join(known)}")
        return function(*args, **settings)

    return checked


def _unknown_arguments(unknown: list[str], known: Sequence[str], words: Sequence[str]) -> str:
    if names := [word.partition("=")[0] for word in unknown if re.match(r"--?[A-Za-z]", word)]:
        return unknown_options(names, known)
    first = unknown[0]
    if "=" in first and "--arm" in known:
        return f"unknown argument {first!r}; an arm is given as --arm {first}"
    if "=" in first:  # imgsz=640
        return unknown_options([f"--{first.partition('=')[0]}"], known)
    if command := OTHER_COMMANDS.get(first):
        return f"unknown argument {first!r}; did you mean {command}?"
    if first.endswith("data.yaml") and "--data.root" in known:
        return f"unknown argument {first!r}; the data.yaml of YOLO labels is given as --data.root {first}"
    if first.endswith((".yaml", ".yml")) and "--config" in known:
        return f"unknown argument {first!r}; a configuration file is given as --config {first}"
    return _several_values(unknown, words) or f"unknown argument {first!r}; {_siblings('--', known)}"


def _several_values(unknown: list[str], words: Sequence[str]) -> str | None:
    """Return the message for an option in ``words`` that has several values, ``--tile 64 96``; None if there is none."""
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        values = [*([value] if equals else []), *takewhile(lambda word: not word.startswith("--"), words[place + 1 :])]
        numbers = list(takewhile(NUMBER.fullmatch, values))
        if option.startswith("--") and (len(numbers) > 1 or values[1:] == unknown):
            values, spaces = (numbers, "") if len(numbers) > 1 else (values, "; quote a value with spaces")
            given = f"{option} takes one value, and is given {len(values)}: {' '.join(values)}"
            return f"{given}; a list is one value, as {option} '[{', '.join(values)}]'{spaces}"
    return None


def _wrong_choice(argument: str, value: str, choices: list[str]) -> str:
    if argument not in ("command", "COMMAND"):
        return unknown_name(f"value of {argument}:", value, choices)
    message = unknown_name("command", value, choices)
    command = OTHER_COMMANDS.get(letters(value))
    return (
        message if command is None else f"unknown command {value!r}; did you mean {command}? Commands: {', '.join(choices)}"
    )


def _nearest_options(name: str, known: Sequence[str]) -> list[str]:
    """Return the options for ``name``: of the same group, by another tool's name, or by similar letters."""
    group, _, last = f"--{name.lstrip('-')}".rpartition(".")
    in_group = [option for option in known if group and option.startswith(f"{group}.")]
    return _by_last_part(last, in_group) or _by_last_part(last, known) or nearest_names(name, known)


def _by_last_part(name: str, known: Sequence[str]) -> list[str]:
    last_parts: dict[str, list[str]] = {}
    for option in known:
        last_parts.setdefault(letters(option.rpartition(".")[2]), []).append(option)
    for parts in (OTHER_SPELLINGS.get(letters(name), ()), [name], nearest_names(name, last_parts)):
        if options := [option for part in parts for option in last_parts.get(letters(part), [])]:
            return options[:3]
    return []


def _siblings(name: str, known: Sequence[str]) -> str:
    """Return the list of the options in the group of ``name``: of ``--data.augment`` for ``--data.augment.mosaik``."""
    group = name.lstrip("-").rpartition(".")[0]
    while group and not any(option.startswith(f"--{group}.") for option in known):
        group = group.rpartition(".")[0]
    start = f"--{group}." if group else ""
    names: dict[str, None] = {}  # an ordered set
    for option in (option for option in known if option.startswith(start)):
        part, _, below = option[len(start) :].partition(".")
        names[f"{part}.*" if below or any(other.startswith(f"{option}.") for other in known) else part] = None
    return f"{group or 'there'} {'has' if group else 'are'} {', '.join(names)}"
