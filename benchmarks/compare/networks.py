"""An arm as the program that trains it builds it: TrainCLI checks every setting, and makes data, network and Trainer."""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from benchmarks.compare.study import Part
from benchmarks.runs import as_arguments
from data import CocoDataModule
from detector.commands.train_cli import TrainCLI
from detector.config_files import read_config
from detector.text import flatten
from detector.training.module import DetectorModule


@dataclass(frozen=True)
class BuiltArm:
    """An arm on one data set, untrained."""

    name: str
    module: DetectorModule
    data: CocoDataModule
    overrides: dict[str, Any]  # model.overrides of the configuration
    epochs: int
    device: torch.device
    precision: str  # of the Trainer

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network input."""
        return self.data.size


def build_arm(name: str, arguments: Sequence[str]) -> BuiltArm:
    """Build an arm from ``arguments`` of train.py. Raises ValueError with the message of train.py for a mistake in them."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()), _quiet():
            cli = TrainCLI(CocoDataModule, [*arguments, "--run_dir=runs/never-written"])
    except SystemExit as stop:
        text = stop.code if isinstance(stop.code, str) else said.getvalue()
        text = text.partition("error: ")[2].replace("\n(--help explains the options)", "").strip() or text.strip()
        raise ValueError(f"arm {name!r}: {text}") from None
    if checkpoint := cli.config["ckpt_path"]:
        raise ValueError(f"arm {name!r}: leave out ckpt_path {checkpoint}: a study starts and resumes its runs itself")
    trainer = cli.config["trainer"]
    for setting in ("limit_val_batches", "fast_dev_run", "enable_checkpointing"):
        if trainer[setting] is not None and trainer[setting] is not (setting == "enable_checkpointing"):
            raise ValueError(f"arm {name!r}: leave out trainer.{setting} {trainer[setting]}: a study needs whole runs")
    epochs = cli.trainer.max_epochs or -1
    if epochs < 1 or trainer["max_steps"] not in (None, -1):
        raise ValueError(f"arm {name!r}: a study compares runs of as many epochs: give trainer.max_epochs, no max_steps")
    overrides = dict(cli.config["model"]["overrides"] or {})
    return BuiltArm(
        name, cli.model, cli.datamodule, overrides, epochs, cli.trainer.strategy.root_device, str(trainer["precision"])
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the program logs and warns of: it says it again when it trains."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def arguments_of(part: Part) -> list[str]:
    """Return the arguments of train.py for configuration files and settings."""
    return as_arguments(part.settings, [str(path) for path in part.configs])


def given_settings(part: Part) -> dict[str, Any]:
    """Return the settings that ``part`` gives, from its files and its own, on one level: those that a result belongs to."""
    given: dict[str, Any] = {}
    for path in part.configs:
        given |= flatten(read_config(path))
    for name, text in part.settings.items():
        given = {key: value for key, value in given.items() if key != name and not key.startswith(f"{name}.")}
        given |= flatten({name: yaml.safe_load(text)})
    return json.loads(json.dumps(given, sort_keys=True, default=str))


def settings_differ(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what differs between two results of ``given_settings``, as text."""
    names = sorted(name for name in old.keys() | new.keys() if (name in old, old.get(name)) != (name in new, new.get(name)))
    return [f"{name}: {_shown(old, name)} -> {_shown(new, name)}" for name in names]


def _shown(settings: dict[str, Any], name: str) -> str:
    return re.sub(r"\s+", " ", repr(settings[name])) if name in settings else "not given"
