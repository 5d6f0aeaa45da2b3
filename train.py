"""Train or evaluate a detector: ``python train.py --config configs/dyn_n.yaml``.

Configuration files are merged in the order given, over ``configs/base.yaml``, and any value can be set on the command
line: ``--model.lr 0.02``. ``--ckpt_path`` resumes, ``--eval CKPT`` only evaluates.
"""

import gc

gc.disable()  # imports are faster without; on again at their end

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from data import CocoDataModule
from detector import DetectorModule
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.data_wait import DataWait
from detector.callbacks.ema import RampedEMA
from detector.callbacks.epoch_log import EpochLog
from detector.callbacks.non_finite_guard import NonFiniteGuard, NonFiniteLoss
from detector.callbacks.prediction_sheet import PredictionSheet
from detector.callbacks.routing_log import RoutingLog
from detector.callbacks.save_on_signal import SaveOnSignal, StoppedBySignal
from detector.evaluation.coco_eval import coco_table
from detector.runs.checkpoint_io import AtomicCheckpointIO
from detector.runs.checks import check_classes, check_resumable, report_differences
from detector.runs.folder import (
    BEST_CHECKPOINT,
    CONFIG,
    LAST_CHECKPOINT,
    RECORD,
    REPORT,
    TENSORBOARD,
    choose_run_dir,
    evaluation_file,
    metrics_folder,
    numbered,
    numbered_files,
)
from detector.runs.launch import PARENT_VARIABLE, RUN_DIR_VARIABLE, end_with_parent
from detector.runs.record import run_record
from detector.runs.slurm import continue_slurm_job
from detector.text import plural
from detector.training.batch_size import cuda_batch_size
from detector.weights.files import read_weights
from detector.weights.info import OWN_CHECKPOINT

gc.enable()

BASE_CONFIG = Path(__file__).parent / "configs" / "base.yaml"
# Shown before an error; --help lists the options.
USAGE = "python train.py [--help] [--config FILE ...] [--GROUP.OPTION VALUE ...]"


class DetectorCLI(LightningCLI):
    """Builds everything from the configuration, and decides where the run is written."""

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            DetectorModule,
            CocoDataModule,
            save_config_callback=None,  # it refuses a used folder, also to resume in; see write_config
            parser_kwargs={"default_config_files": [str(BASE_CONFIG)], "allow_abbrev": False, "usage": USAGE},
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hyperparameters are what __init__ received, linked values included
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is ours beside Lightning's trainer, model and data."""
        parser.add_argument("--run_dir", type=str | None, help="folder of the run; by default runs/<variant>, numbered")
        parser.add_argument("--ckpt_path", type=str | None, help="checkpoint of ours to resume from, <run>/last.ckpt")
        parser.add_argument("--eval", type=str | None, help="only evaluate these weights, with the data of the config")
        parser.add_argument("--split", type=Literal["val", "test"], default="val", help="what --eval evaluates on")
        parser.add_argument(
            "--auto_batch_size",
            type=float | None,
            help="choose data.batch_size so that a step takes this share of the CUDA device's memory, 0.8 say",
        )
        parser.add_lightning_class_args(RampedEMA, "ema")
        parser.add_lightning_class_args(CocoEvaluation, "evaluation")
        parser.add_lightning_class_args(NonFiniteGuard, "guard")
        for name in ("class_names", "category_ids"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")
        parser.link_arguments("data.size", "model.image_size", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed")

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Take a seed as a number only: the data need it too, and a run without one cannot be repeated."""
        parser.add_argument("--seed_everything", type=int, default=0, help="seed of weights, data order and augmentation")

    def before_instantiate_classes(self) -> None:
        """Settle where to write, and how many runs have been written there before this one."""
        for option in ("ckpt_path", "eval"):
            path = self.config[option]
            if path and not Path(path).is_file():
                raise ValueError(f"--{option} {path} is not a file; a run has <run>/last.ckpt and <run>/best.ckpt")
        if self.config["eval"]:
            self.config["ckpt_path"] = None  # the config.yaml of a resumed run has one
        data = self.config["data"]
        may_have_test = data["test_annotations"] is not None or data["root"].endswith((".yaml", ".yml"))
        if self.config["eval"] and self.config["split"] == "test" and not may_have_test:
            raise ValueError("--split test needs data.test_annotations and data.test_images")
        resolve_model_settings(self.config)
        if continue_slurm_job(self.config):
            resolve_model_settings(self.config)  # by the checkpoint now
        self.run_dir = choose_run_dir(self.config)
        if not self.config["eval"]:
            self.config["run_dir"] = str(self.run_dir)  # config.yaml says where the run is, not where it was to be
        self.attempt = 1 + len(numbered_files(self.run_dir, CONFIG))

    def after_instantiate_classes(self) -> None:
        """Check what only shows once model and data are there."""
        started = int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else self.trainer.world_size
        if started != self.trainer.world_size:  # each would train by itself, into the same folder
            raise ValueError(
                f"torchrun has started {plural(started, 'process', 'processes')}, but trainer.devices x trainer.num_nodes "
                f"is {self.trainer.world_size}: give --trainer.devices (and --trainer.num_nodes) as torchrun was given them"
            )
        largest = self.model.model.strides[-1]
        if any(side % largest for side in self.datamodule.size):
            raise ValueError(
                f"data.image_size is {self.datamodule.size}; both sides must be multiples of {largest}, the largest stride "
                f"of {self.config['model']['variant']}"
            )
        if path := self.config["ckpt_path"]:
            check_resumable(path, dict(self.model.hparams), self.trainer.max_epochs)
            report_differences(Path(path).parent, yaml.safe_load(self.parser.dump(self.config)))
        if path := self.config["eval"]:
            check_classes(path, self.model.class_names, self.model.category_ids)
        elif (share := self.config["auto_batch_size"]) is not None:
            self._choose_batch_size(share)

    def _choose_batch_size(self, share: float) -> None:
        """Measure how many images fit, and go on as if that had been given: config.yaml has the number."""
        if not 0 < share < 1:
            raise ValueError(f"--auto_batch_size is {share}; expected a share of the GPU's memory, above 0 and below 1")
        if self.trainer.world_size > 1:
            raise ValueError("--auto_batch_size works on one device; measure there, then give data.batch_size for all")
        if self.config["ckpt_path"]:
            raise ValueError("--auto_batch_size is for new runs; one that is resumed keeps its data.batch_size")
        size = max(self.datamodule.training_sizes, key=prod)
        device, precision = self.trainer.strategy.root_device, str(self.config["trainer"]["precision"])
        try:
            number = cuda_batch_size(self.model, size, precision, device, share)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"--auto_batch_size: {error}; a smaller data.image_size or model.variant needs less") from None
        rank_zero_info(
            f"data.batch_size {number}: what fits into {share:.0%} of the GPU's memory at {size} px (height, width)"
        )
        self.datamodule.batch_size = self.config["data"]["batch_size"] = number
        self.config["data"]["val_batch_size"] = self.datamodule.val_batch_size  # as before: what was measured is training
        self.config["auto_batch_size"] = None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer write into the run folder."""
        return super().instantiate_trainer(default_root_dir=str(self.run_dir), logger=self._loggers(), **kwargs)

    def _loggers(self) -> list[Logger]:
        configured = self.config_init["trainer"]["logger"]
        if configured is False or self.config["eval"]:
            return []
        version = metrics_folder(self.attempt)  # the CSV logger would delete the old file
        own = [CSVLogger(self.run_dir, "", version), TensorBoardLogger(self.run_dir, "", TENSORBOARD)]
        return own if configured in (None, True) else own + (configured if isinstance(configured, list) else [configured])

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config["sync_batchnorm"] = config["sync_batchnorm"] and on_cuda(config["accelerator"])
        if self.config["eval"]:  # the checkpoint holds the average already
            callbacks = [c for c in callbacks if not isinstance(c, RampedEMA | NonFiniteGuard)]
        else:
            callbacks += [DataWait(), EpochLog()]
        callbacks += [PredictionSheet(), RoutingLog()]
        if not self.config["eval"]:
            written = checkpoints(self.run_dir, config)
            callbacks += [SaveOnSignal(self.run_dir / LAST_CHECKPOINT if written else None), *written]
        if config["enable_progress_bar"] is None:
            config["enable_progress_bar"] = sys.stderr.isatty()
        if config["enable_progress_bar"]:
            callbacks.append(TQDMProgressBar(refresh_rate=20))
        given = config["plugins"] or []
        config["plugins"] = [*(given if isinstance(given, list) else [given]), AtomicCheckpointIO()]
        return super()._instantiate_trainer(config, callbacks)


def resolve_model_settings(config: Any) -> None:
    """Decide what the settings of the model leave open: what is not given comes from the checkpoint or the weights file.

    A run that is resumed or evaluated does not need the weights that it started from: they are in the checkpoint.
    """
    model, path = config["model"], config["eval"] or config["ckpt_path"]
    if path is not None:
        model["weights"] = None
        weights = read_weights(path)
        saved = weights.info
        if weights.kind != OWN_CHECKPOINT:
            if not config["eval"]:
                raise ValueError(
                    f"{path} is a {weights.kind}, with nothing to resume a training by; start from it with --model.weights"
                )
            model["weights"] = path  # evaluated are weights that a network is built with
        elif config["eval"]:
            if model["variant"] not in (None, saved.variant):
                rank_zero_info(f"{path} is a {saved.variant}: model.variant {model['variant']} is not used")
            model["variant"], model["overrides"] = saved.variant, saved.overrides
        elif "class_channels" in saved.overrides:  # taken over from the weights when the run began
            model["overrides"] = {"class_channels": saved.overrides["class_channels"]} | (model["overrides"] or {})
        model["variant"] = model["variant"] or saved.variant
    elif model["variant"] is None:
        model["variant"] = "dyn_n" if model["weights"] is None else read_weights(model["weights"]).info.variant


def on_cuda(accelerator: str) -> bool:
    """Tell whether this ``trainer.accelerator`` means CUDA devices, the only ones that torch has SyncBatchNorm for."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def checkpoints(run_dir: Path, trainer: dict[str, Any]) -> list[ModelCheckpoint]:
    """Return what writes ``last.ckpt`` after every epoch and, if there is a validation to judge by, ``best.ckpt``."""
    if trainer["enable_checkpointing"] is False:
        return []
    last = ModelCheckpoint(run_dir, Path(LAST_CHECKPOINT).stem, save_on_train_epoch_end=True, enable_version_counter=False)
    best = ModelCheckpoint(run_dir, Path(BEST_CHECKPOINT).stem, monitor="val/AP", mode="max", enable_version_counter=False)
    # The best one first: the last one then holds what the best one knows, which a resumed run goes by.
    return [last] if trainer["limit_val_batches"] == 0 else [best, last]


@rank_zero_only
def write_config(cli: DetectorCLI) -> None:
    """Write the resolved configuration and what the run is made with; those of a resumed run go into files of their own."""
    cli.run_dir.mkdir(parents=True, exist_ok=True)
    cli.parser.save(cli.config, cli.run_dir / numbered(CONFIG, cli.attempt))
    (cli.run_dir / numbered(RECORD, cli.attempt)).write_text(json.dumps(run_record(), indent=1) + "\n")


def fit(cli: DetectorCLI) -> None:
    """Train, and say at the end what came out and where it is."""
    write_config(cli)
    with child_process_environment(cli) as is_child:
        try:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config["ckpt_path"], weights_only=True)
        except StoppedBySignal as stop:
            log_resume_command(cli, stop)
            # As shells report a process that a signal has ended. Lightning kills all when a child exits with an error.
            sys.exit(0 if is_child else 128 + stop.signum)
        except NonFiniteLoss as error:
            sys.exit(f"error: {error}")
    report(cli)


@rank_zero_only
def log_resume_command(cli: DetectorCLI, stop: StoppedBySignal) -> None:
    """Print the command that resumes the run."""
    config = numbered_files(cli.run_dir, CONFIG)[-1]
    again = f": python train.py --config {config} --ckpt_path {stop.checkpoint}" if stop.checkpoint else ""
    rank_zero_info(f"{stop}{again}")


@contextmanager
def child_process_environment(cli: DetectorCLI) -> Iterator[bool]:
    """Tell the processes that Lightning starts what they must know, and yield whether this is one of them.

    Out of memory exits with advice.
    """
    is_child = RUN_DIR_VARIABLE in os.environ
    if is_child:
        end_with_parent(int(os.environ[PARENT_VARIABLE]))
    else:
        os.environ |= {RUN_DIR_VARIABLE: str(cli.run_dir), PARENT_VARIABLE: str(os.getpid())}
    try:
        yield is_child
    except torch.OutOfMemoryError as error:
        sys.exit(f"error: {out_of_memory(cli.config)}\n{error}")
    finally:
        if not is_child:
            del os.environ[RUN_DIR_VARIABLE], os.environ[PARENT_VARIABLE]


def out_of_memory(config: Any) -> str:
    """Say what was tried and what needs less."""
    data, trainer = config["data"], config["trainer"]
    if config["eval"]:
        size = data["val_batch_size"] or data["batch_size"]
        return f"out of memory with data.val_batch_size {size} at data.image_size {data['image_size']}: give a smaller one"
    return (
        f"out of memory with data.batch_size {data['batch_size']} (a device) at data.image_size {data['image_size']} in "
        f"{trainer['precision']}. Halve data.batch_size: model.nominal_batch keeps the images of an optimizer step as they "
        "are. Validation takes data.val_batch_size. Other ways: --config configs/bf16.yaml, a smaller data.image_size (with "
        "data.augment.multi_scale the largest counts), a smaller model.variant"
    )


def evaluate(cli: DetectorCLI) -> None:
    """Evaluate ``--eval``, a checkpoint or other weights, on the validation or test data and print the table."""
    model = cli.model  # which has the weights already, if they are not a checkpoint
    if not cli.config["model"]["weights"]:
        model = DetectorModule.load_from_checkpoint(cli.config["eval"], map_location="cpu", weights_only=True)
    run = cli.trainer.validate if cli.config["split"] == "val" else cli.trainer.test
    with child_process_environment(cli):
        run(model, datamodule=cli.datamodule, verbose=False)
    if cli.config["evaluation"]["predictions"]:
        write_evaluation(cli)
    report(cli)
    trained, judged = read_weights(cli.config["eval"]).info.image_size, tuple(cli.datamodule.size)
    if trained not in (None, judged):
        rank_zero_info(
            f"these numbers are of an input of {judged} (height, width), but the weights were trained with {trained}: AP "
            f"may be far lower for it; for that of the training add --data.image_size '{list(trained)}'"
        )


@rank_zero_only
def write_evaluation(cli: DetectorCLI) -> None:
    """Write the resolved configuration beside the predictions: which checkpoint was judged, on what, at which input size."""
    cli.run_dir.mkdir(parents=True, exist_ok=True)
    (cli.run_dir / REPORT).unlink(missing_ok=True)  # of the evaluation that this one replaces
    cli.config["eval"] = str(Path(cli.config["eval"]).resolve())  # the report may be made from elsewhere
    cli.parser.save(cli.config, cli.run_dir / evaluation_file(cli.config["split"]), overwrite=True)


@rank_zero_only
def report(cli: DetectorCLI) -> None:
    """Print the table of the last evaluation, and one line that says what came out and where it is."""
    evaluation = next(c for c in cli.trainer.callbacks if isinstance(c, CocoEvaluation))
    if evaluation.results:
        print(coco_table(evaluation.results))
    values = [f"{branch} AP {result.metrics['AP']:.3f}" for branch, result in evaluation.results.items()]
    best = next((c for c in cli.trainer.checkpoint_callbacks if c.monitor), None)
    if best is not None and best.best_model_score is not None:
        values.append(f"best AP {best.best_model_score:.3f} in {BEST_CHECKPOINT}")
    there = ", ".join(sorted(path.name for path in cli.run_dir.iterdir() if path.is_file() and path.suffix != ".yaml"))
    print(f"report: python -m detector report {cli.run_dir}")
    print(f"done: {', '.join(values) or 'no evaluation'}; everything is in {cli.run_dir}: {there}")
    for image in cli.run_dir.glob("*_predictions.jpg"):
        print(f"look at {image}")


def filter_warnings() -> None:
    """Keep hints that do not apply here out of the log."""
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*exists and is not empty.*",
        ".*ended before the epoch ended and your dataloader is not resumable.*",  # the data module knows where it was
        ".*module.s. in eval mode at the start of training.*",  # frozen parts are to be
        ".*LeafSpec.*",
        "(?s).*was deprecated in v4.*",  # of jsonargparse, inside LightningCLI
        "(?s).*JsonargparseDeprecationWarning.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.getMessage())


def main(args: list[str] | None = None) -> None:
    """Parse ``args`` (by default the command line) and train or evaluate; mistakes in them exit with a message."""
    filter_warnings()
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it
    try:
        cli = DetectorCLI(args)
    except (ValueError, TypeError) as error:
        sys.exit(f"error: {error}")
    if cli.config["eval"]:
        evaluate(cli)
    else:
        fit(cli)


if __name__ == "__main__":
    gc.freeze()  # what is imported stays: collections need not look at it, nor forked workers copy it for that
    main()
