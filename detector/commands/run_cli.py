"""The command line that all programs share: train.py, evaluate.py and pretrain.py."""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import SUPPRESS, get_loader, set_loader
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from detector.callbacks import RoutingLog, RunProgressBar
from detector.commands.run_parser import RunParser
from detector.commands.run_trainer import RunTrainer
from detector.files import read_yaml, unique_key_loader
from detector.imaging.read import BadImageError
from detector.network.config import nested_overrides
from detector.runs.checkpoint_io import AtomicCheckpointIO
from detector.runs.folder import sheet_file
from detector.runs.launch import check_torchrun, child_process_environment
from detector.training.lightning_hints import hide_hints

CONFIGS = Path(__file__).parents[2] / "configs"


class RunCLI(LightningCLI):
    """Build data, network and Trainer from configuration files and options; mistakes in them exit with a message.

    Configuration files are merged in the order given, over ``base_config``. Any value can be set on the command line:
    ``--model.lr 0.02``. The data module takes a ``seed`` and has the attributes in ``links``.

    A subclass sets ``run_dir``, the folder to write to, in ``before_instantiate_classes``.
    """

    usage: str  # shown before an error; --help lists the options
    module_class: type[LightningModule]
    base_config: Path
    parser_class: type[RunParser] = RunParser
    run_trainer_class: type[RunTrainer] = RunTrainer
    links: tuple[tuple[str, str], ...]  # attributes of the data module, and the arguments of ``module_class`` that they set
    # Settings of the other program (train.py or evaluate.py): accepted and ignored, so both can read the same files.
    ignored_settings: tuple[str, ...] = ()
    run_dir: Path

    def __init__(self, datamodule_class: type[LightningDataModule], args: list[str] | None = None) -> None:
        """Parse ``args``, by default the command line, and build everything."""
        filter_warnings()
        torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it
        try:
            super().__init__(
                self.module_class,
                datamodule_class,
                trainer_class=self.run_trainer_class,
                save_config_callback=None,  # Lightning's callback fails if the folder is not empty, even when resuming
                parser_kwargs={"default_config_files": [str(self.base_config)], "allow_abbrev": False, "usage": self.usage},
                parser_class=self.parser_class,
                args=args,
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # saved hyperparameters include linked values, as class_names
            )
        except (ValueError, TypeError, OSError, MisconfigurationException) as error:  # OSError: no permission
            sys.exit(f"error: {error}")

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, which must be a number: a run with a random seed could not be repeated."""
        parser.add_argument("--seed_everything", type=int, default=0, help="seed of weights, data order and augmentation")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the evaluation, and link what the network takes from the data."""
        for name in self.ignored_settings:
            parser.add_argument(f"--{name}", type=Any, default=SUPPRESS, help=SUPPRESS)
        self.add_evaluation(parser)
        for attribute, argument in self.links:
            parser.link_arguments(f"data.{attribute}", f"model.{argument}", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def add_evaluation(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that evaluate the network on the validation data."""
        raise NotImplementedError

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args`` into ``config``, and move the ignored settings to ``ignored_values``."""
        refuse_repeated_keys(sys.argv[1:] if args is None else args)
        super().parse_arguments(parser, args)
        if overrides := self.config["model"]["overrides"]:
            self.config["model"]["overrides"] = nested_overrides(overrides)
        self.ignored_values = {name: self.config.pop(name) for name in self.ignored_settings if name in self.config}

    def config_text(self) -> str:
        """Return all settings as YAML, with those that are null: a file without them would mean the defaults."""
        return self.parser.dump(self.config, skip_none=False)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer, with our callbacks and loggers and with atomic checkpoints, to write into the run folder."""
        settings = self.config_init["trainer"]
        progress_bar = settings["enable_progress_bar"]
        if progress_bar is None:
            progress_bar = sys.stderr.isatty()
        # LightningCLI appends these callbacks to the others, see callbacks().
        # A refresh reads metrics, for which a GPU waits; on a CPU a step may take a second.
        refresh_rate = 20 if uses_cuda(settings["accelerator"]) else 5
        self.trainer_defaults["callbacks"] = self.callbacks() + ([RunProgressBar(refresh_rate)] if progress_bar else [])
        plugins = settings["plugins"] or []
        return super().instantiate_trainer(
            default_root_dir=str(self.run_dir),
            logger=self.loggers(),
            enable_progress_bar=progress_bar,
            sync_batchnorm=settings["sync_batchnorm"] and uses_cuda(settings["accelerator"]),
            plugins=[*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()],
            **kwargs,
        )

    def callbacks(self) -> list[Callback]:
        """Return the callbacks of every run that ``LightningCLI`` does not add itself.

        Lightning calls callbacks in the order of its list. ``LightningCLI`` puts those of ``trainer.callbacks`` first, then
        ``ema``, ``evaluation`` and ``guard``, then these; ``TrainingCLI.callbacks`` has the whole list.
        """
        return [*self.sheets(), RoutingLog()]

    def sheets(self) -> list[Callback]:
        """Return the callbacks that draw images of an evaluation; none here."""
        return []

    def loggers(self) -> list[Logger]:
        """Return the loggers; none here."""
        return []

    def after_instantiate_classes(self) -> None:
        """Check that torchrun has started as many processes as the Trainer has."""
        check_torchrun(self.trainer.world_size)

    @contextmanager
    def run_environment(self) -> Iterator[bool]:
        """Enter ``child_process_environment``; exit with a message for a bad image, and if memory runs out."""
        with child_process_environment(self.run_dir) as is_child:
            try:
                yield is_child
            except torch.OutOfMemoryError as error:
                sys.exit(f"error: {self.memory_advice()}\n{error}")
            except BadImageError as error:
                sys.exit(f"error: {text_of_error(error)}")

    def memory_advice(self) -> str:
        """Return the settings that ran out of memory, and settings that need less."""
        raise NotImplementedError

    @rank_zero_only
    def print_results(self) -> None:
        """Print the table of the last evaluation, a summary, and the files of the run."""
        if table := self.results_table():
            print(table)
        names = sorted(path.name for path in self.run_dir.iterdir() if path.is_file() and path.suffix != ".yaml")
        print(f"report: python -m detector report {self.run_dir}")
        summary = ", ".join(self.summary()) or "no evaluation"
        print(f"done: {summary}; everything is in {self.run_dir}: {', '.join(names)}")
        for image in self.run_dir.glob(sheet_file("*")):
            print(f"look at {image}")

    def results_table(self) -> str:
        """Return the results of the last evaluation as a table; empty without one."""
        raise NotImplementedError

    def results_summary(self) -> list[str]:
        """Return short phrases about the results of the last evaluation."""
        raise NotImplementedError

    def summary(self) -> list[str]:
        """Return short phrases about the run."""
        return self.results_summary()


def text_of_error(error: Exception) -> str:
    """Return the message of an error and its notes, without the traceback that torch puts before the message of a worker."""
    message = str(error)
    if message.startswith("Caught "):
        message = re.split(r"^[\w.]+Error: ", message, flags=re.MULTILINE)[-1].rstrip()
    return "\n".join([message, *getattr(error, "__notes__", [])])


def refuse_repeated_keys(words: Sequence[str]) -> None:
    """Raise ValueError if a configuration file in ``words`` gives a key twice; let jsonargparse refuse it in other YAML."""
    for word in words:
        path = Path(word.partition("=")[2] or word)
        if path.suffix in (".yaml", ".yml") and path.is_file():
            read_yaml(path, "correct it")
    set_loader("yaml", unique_key_loader(get_loader("yaml")), (yaml.YAMLError,))


def uses_cuda(accelerator: str) -> bool:
    """Return True if this ``trainer.accelerator`` means CUDA devices, the only ones that torch has SyncBatchNorm for."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def filter_warnings() -> None:
    """Keep hints that do not apply here out of the log."""
    hide_hints()
    for message in (
        ".*ended before the epoch ended and your dataloader is not resumable.*",  # our data module saves its position
        "(?s).*was deprecated in v4.*",  # warnings of jsonargparse about its use in LightningCLI
        "(?s).*JsonargparseDeprecationWarning.*",
    ):
        warnings.filterwarnings("ignore", message=message)
