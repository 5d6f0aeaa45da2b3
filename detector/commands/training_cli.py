"""The command line that train.py and pretrain.py share: run folder, resuming, logs, checkpoints, signals."""

import json
import sys
from math import prod
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from detector.callbacks import DataWait, EpochLog, Patience, RampedEMA, TimeEstimate
from detector.callbacks.non_finite_guard import NonFiniteGuard, NonFiniteLoss
from detector.callbacks.save_on_signal import SaveOnSignal, StoppedBySignal
from detector.commands.run_cli import RunCLI, uses_cuda
from detector.commands.training_length import idle_patience, missing_validation, training_length
from detector.runs import folder
from detector.runs.checks import check_resumable, log_changed_settings
from detector.runs.launch import inherited_run_dir
from detector.runs.old_report import set_aside_message, set_aside_report
from detector.runs.record import run_record
from detector.runs.slurm import resume_slurm_job
from detector.text import plural, unknown_name
from detector.training.batch_size import automatic_batch_size, needs_several_images
from detector.training.steps import limited_batches

LOSSES = ("total", "loss", "box", "cls", "l1")  # last parts of the names of numbers that should be low
VALIDATION_OPTIONS = ("patience", "monitor", "monitor_mode")  # have no meaning without a validation


class TrainingCLI(RunCLI):
    """Build a training from configuration files and options, and run or resume it.

    A subclass fills in the section ``model`` of the configuration in ``_resolve_model_settings``, and checks it in
    ``_check_network_settings``: before the data are read.
    """

    program: str  # file name, for the command that resumes a run
    run_prefix = ""  # of the default folder, runs/<prefix><variant>
    default_monitor: str  # best.ckpt has the highest value of this metric, unless the user names another one
    faster_data: str  # advice where steps wait for data
    smaller_batches: str  # what a smaller batch size changes, and other ways to need less memory: advice where it runs out
    less_memory: str

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a training, weight averaging and the guard against losses that are not finite."""
        default = f"by default runs/{self.run_prefix}<variant>, numbered"
        parser.add_argument("--run_dir", type=str | None, help=f"folder of the run; {default}")
        parser.add_argument("--ckpt_path", type=str | None, help="checkpoint of ours to resume from, <run>/last.ckpt")
        batch_size_help = "choose data.batch_size so that a step takes this fraction of the CUDA device's memory, e.g. 0.8"
        parser.add_argument("--auto_batch_size", type=float | None, help=batch_size_help)
        monitor_help = (
            f"number of the validation that is best in best.ckpt, e.g. val/AP50; by default {self.default_monitor}"
        )
        parser.add_argument("--monitor", type=str | None, help=monitor_help)
        mode_help = "whether a high or a low value of monitor is better; by default min for losses, else max"
        parser.add_argument("--monitor_mode", type=Literal["max", "min"] | None, help=mode_help)
        patience_help = (
            "epochs without a better value of monitor after which mosaic ends, and then training; by default never"
        )
        parser.add_argument("--patience", type=int | None, help=patience_help)
        parser.add_lightning_class_args(RampedEMA, "ema")  # before the evaluation, see callbacks()
        super().add_arguments_to_parser(parser)
        parser.add_lightning_class_args(NonFiniteGuard, "guard")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args``; raise ValueError for misplaced blocks of the user."""
        super().parse_arguments(parser, args)
        if "replace" in (self.config["model"]["overrides"] or {}):  # jsonargparse has filled in arguments of the blocks
            raise ValueError("model.overrides has replace; give it on its own, as model.replace (docs/your-own-block.md)")

    def before_instantiate_classes(self) -> None:
        """Fill in the settings of the model, and choose the folder of the run."""
        self._resolve_model_settings()
        if resume_slurm_job(self.config, self.run_prefix):
            self._resolve_model_settings()  # again: ckpt_path is now the checkpoint of the job's run
        self._check_network_settings()
        self.run_dir = inherited_run_dir() or folder.training_folder(self.config, self.run_prefix)
        self.config["run_dir"] = str(self.run_dir)  # config.yaml gets the folder of the run, not the requested one
        self.start_number = 1 + len(folder.numbered_files(self.run_dir, folder.CONFIG))

    def _resolve_model_settings(self) -> None:
        """Fill in the section ``model`` from the checkpoint or weights file. Raises ValueError for a wrong file."""
        raise NotImplementedError

    def _check_network_settings(self) -> None:
        """Raise ValueError for wrong settings of the network: now, not after the data are read."""
        raise NotImplementedError

    def monitored_names(self) -> list[str]:
        """Return the names of the numbers that every validation logs."""
        raise NotImplementedError

    @property
    def monitor(self) -> str:
        """The number of the validation that is best in best.ckpt."""
        return self.config["monitor"] or self.default_monitor

    @property
    def monitor_mode(self) -> str:
        """Whether a high or a low value is taken for better: "max" or "min"."""
        return self.config["monitor_mode"] or self.usual_mode

    @property
    def usual_mode(self) -> str:
        """The mode by the name of the monitored number: "min" for losses."""
        is_loss = self.monitor.rpartition("/")[2] in LOSSES and "/AP_class/" not in self.monitor  # a class may be named box
        return "min" if is_loss else "max"

    def _check_monitor(self) -> None:
        """Raise ValueError for a number that the validation does not log, and for patience without validation.

        Warn of a mode that takes the worst value for the best.
        """
        if self.monitor not in (names := self.monitored_names()):
            raise ValueError(unknown_name("number of the validation for monitor:", self.monitor, names))
        if self.config["monitor_mode"] not in (None, self.usual_mode):
            good, chosen = ("low", "highest") if self.usual_mode == "min" else ("high", "lowest")
            rank_zero_warn(
                f"monitor_mode {self.monitor_mode}: best.ckpt gets the {chosen} {self.monitor}, of which {good} values are "
                "better; leave out monitor_mode unless you want that"
            )
        asked = [name for name in VALIDATION_OPTIONS if self.config[name] is not None]
        if asked and self.config_init["trainer"]["limit_val_batches"] == 0:
            setting = "data.val_split" if getattr(self.datamodule, "val_split", None) == 0 else "trainer.limit_val_batches"
            raise ValueError(f"{asked[0]} needs a validation, but {setting} is 0; leave out one of them")

    def loggers(self) -> list[Logger]:
        """Return CSV and TensorBoard loggers and those of the configuration; none for ``logger: false``."""
        configured = self.config_init["trainer"]["logger"]
        if configured is False:
            return []
        # A folder for every start: CSVLogger deletes a metrics.csv in its folder.
        csv = CSVLogger(self.run_dir, "", folder.metrics_folder(self.start_number))
        tensorboard = TensorBoardLogger(self.run_dir, "", folder.TENSORBOARD)
        if configured in (None, True):
            return [csv, tensorboard]
        return [csv, tensorboard] + (configured if isinstance(configured, list) else [configured])

    def callbacks(self) -> list[Callback]:
        """Return the callbacks of every training that ``LightningCLI`` does not add itself.

        Lightning calls all callbacks of a training in this order:

        - those of ``trainer.callbacks`` in the configuration
        - ``RampedEMA``, the evaluation, ``NonFiniteGuard``: as in ``add_arguments_to_parser``. RampedEMA is first: it
          updates the average before SaveOnSignal or ModelCheckpoint saves it.
        - ``DataWait``, ``EpochLog``, ``TimeEstimate``: EpochLog prints what DataWait has logged.
        - ``Patience``, if asked for: its decision is saved by the callbacks after it.
        - ``PredictionSheet`` (of detectors), ``RoutingLog``: their place does not matter.
        - ``SaveOnSignal``: saves in the middle of an epoch, so the callbacks before it must have updated their state.
        - the progress bar, and Lightning's own callbacks
        - ``ModelCheckpoint`` for best.ckpt, then for last.ckpt: Lightning moves them to the end. They save between epochs.
        """
        checkpoints = self._checkpoint_callbacks()
        save_on_signal = SaveOnSignal(self.run_dir / folder.LAST_CHECKPOINT if checkpoints else None)
        patience = self.config["patience"]
        early_end = [] if patience is None else [Patience(patience, self.monitor, self.monitor_mode)]
        return [
            DataWait(self.faster_data),
            EpochLog(),
            TimeEstimate(),
            *early_end,
            *super().callbacks(),
            save_on_signal,
            *checkpoints,
        ]

    def _checkpoint_callbacks(self) -> list[ModelCheckpoint]:
        """Return the callbacks that write last.ckpt after every epoch and, in a run with validation, best.ckpt."""
        settings = self.config_init["trainer"]
        if settings["enable_checkpointing"] is False:
            return []
        last_name, best_name = Path(folder.LAST_CHECKPOINT).stem, Path(folder.BEST_CHECKPOINT).stem
        last = ModelCheckpoint(self.run_dir, last_name, save_on_train_epoch_end=True, enable_version_counter=False)
        goal: dict[str, Any] = {"monitor": self.monitor, "mode": self.monitor_mode}
        best = ModelCheckpoint(self.run_dir, best_name, **goal, enable_version_counter=False)
        # Call best first, so that last.ckpt also stores the best value so far.
        return [last] if settings["limit_val_batches"] == 0 else [best, last]

    def after_instantiate_classes(self) -> None:
        """Check the checkpoint of a run that is resumed; choose the batch size of a new run if asked to."""
        super().after_instantiate_classes()
        self._check_monitor()
        path, fraction = self.config["ckpt_path"], self.config["auto_batch_size"]
        dynamic = {k: v for k, v in (self.model.hparams.overrides or {}).items() if k == "dynamic"}
        # In full in config.yaml: the default of the variant may change.
        self.config["model"]["overrides"] = (self.config["model"]["overrides"] or {}) | dynamic or None
        if path:
            check_resumable(path, dict(self.model.hparams), self.trainer.max_epochs or -1)
            log_changed_settings(Path(path).parent, yaml.safe_load(self.config_text()))
        if fraction is not None:
            if path:
                raise ValueError("--auto_batch_size is for new runs; one that is resumed keeps its data.batch_size")
            self._choose_batch_size(fraction)
        self._check_batches()
        self._choose_automatic_settings()
        self._check_length()
        self._check_single_images()

    def _choose_automatic_settings(self) -> None:
        """Set what is auto, now that data and batch size are known; nothing here."""

    def _check_batches(self) -> None:
        """Raise ValueError for a ``limit_train_batches`` that leaves no batch to train on."""
        batches, limit = self.datamodule.num_train_batches(self.trainer.world_size), self.trainer.limit_train_batches
        if batches and not limited_batches(batches, limit):
            raise ValueError(
                f"trainer.limit_train_batches is {limit}, and leaves none of the {plural(batches, 'batch', 'batches')} of "
                "an epoch; expected a number of batches, 1 or more, or a larger share as 0.5"
            )

    def _check_length(self) -> None:
        """Warn of a training that ends before its first validation, or before patience can end it.

        Log if all of its epochs are without mosaic. Raises ValueError for patience or a monitor without a validation.
        """
        patience, closing = self.config["patience"], getattr(self.datamodule, "num_closing_epochs", 0)
        if 0 < (epochs := self.trainer.max_epochs or 0) <= closing:
            rank_zero_info(
                f"data.augment.close_mosaic {closing} covers all epochs ({epochs}): no image is mixed with others"
            )
        if self.config_init["trainer"]["limit_val_batches"] == 0:
            return
        length = training_length(self.trainer, self.datamodule, self.model.hparams.nominal_batch)
        if reason := missing_validation(self.trainer, length):
            if asked := [name for name in VALIDATION_OPTIONS if self.config[name] is not None]:
                raise ValueError(f"{asked[0]} needs a validation; {reason}: change one of them, or leave out {asked[0]}")
            rank_zero_warn(f"{reason}; {self._without_validation()}")
        if patience is not None and (reason := idle_patience(patience, length, closing)):
            rank_zero_warn(reason)

    def _check_single_images(self) -> None:
        """Raise ValueError if a batch of a training has one image, and the network needs two at the input size."""
        data, trainer = self.datamodule, self.trainer
        synchronized = self.config_init["trainer"]["sync_batchnorm"] and trainer.world_size > 1
        if synchronized and uses_cuda(self.config_init["trainer"]["accelerator"]):
            return
        smallest = data.smallest_batch(trainer.world_size, trainer.limit_train_batches)
        sizes = [size for size in data.training_sizes if needs_several_images(self.model, size)] if smallest == 1 else []
        if not sizes:
            return
        cause = f"data.batch_size is {data.batch_size}"
        if data.batch_size > 1:
            cause += f", and the last batch of an epoch has one image ({plural(data.num_train_samples, 'sample')} in all)"
        raise ValueError(
            f"{cause}; a BatchNorm of this network gets one value of a channel from one image of {sizes[0][0]} x "
            f"{sizes[0][1]} px, and needs two: choose another data.batch_size, above 1, or a larger data.image_size"
        )

    def _choose_batch_size(self, fraction: float) -> None:
        """Set data.batch_size to the number of images that fit into ``fraction`` of the GPU's memory."""
        size = max(self.datamodule.training_sizes, key=prod)
        batch_size = automatic_batch_size(self.model, self.trainer, size, fraction)
        self.datamodule.batch_size = self.config["data"]["batch_size"] = batch_size
        # Only training was measured: the batch size of validation does not change.
        self.config["data"]["val_batch_size"] = self.datamodule.val_batch_size
        self.config["auto_batch_size"] = None

    def fit(self) -> None:
        """Train or resume; exit if a signal, or a loss that is not finite, stops the run."""
        self._write_config_and_record()
        path = self.config["ckpt_path"]
        with self.run_environment() as is_child:
            try:
                self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=path, weights_only=True)
            except StoppedBySignal as stop:
                self._log_resume_command(stop)
                # A child exits with 0, or Lightning kills all processes.
                # The main process exits with 128 + signal, as shells do.
                sys.exit(0 if is_child else 128 + stop.signum)
            except NonFiniteLoss as error:
                sys.exit(f"error: {error}")

    @rank_zero_only
    def _write_config_and_record(self) -> None:
        """Write the configuration and the record of this start, and name the folder; rename a report of before a resume."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if renamed := set_aside_report(self.run_dir):
            rank_zero_info(set_aside_message(renamed))
        config = self.run_dir / folder.numbered(folder.CONFIG, self.start_number)
        config.write_text(self.config_text(), encoding="utf-8")
        record = self.run_dir / folder.numbered(folder.RECORD, self.start_number)
        record.write_text(json.dumps(run_record(), indent=1) + "\n")
        rank_zero_info(f"folder of this run: {self.run_dir}")
        if self.config_init["trainer"]["limit_val_batches"] == 0:
            rank_zero_info(self._without_validation())

    def _without_validation(self) -> str:
        """Return what a training without validation does not have, and how to use images that are held out."""
        text = f"there is no validation: no AP and no {folder.BEST_CHECKPOINT}; the result is {folder.LAST_CHECKPOINT}"
        if share := getattr(self.datamodule, "val_split", None):
            text += f". {share:.3g} of the images are held out and not used: data.val_split 0 trains on them, too"
        return text

    @rank_zero_only
    def _log_resume_command(self, stop: StoppedBySignal) -> None:
        """Log the reason of the stop and the command that resumes the run."""
        config = folder.numbered_files(self.run_dir, folder.CONFIG)[-1]
        command = f"python {self.program} --config {config} --ckpt_path {stop.checkpoint}"
        rank_zero_info(f"{stop}: {command}" if stop.checkpoint else f"{stop}")

    def memory_advice(self) -> str:
        """Return the settings that ran out of memory, and settings that need less."""
        data, trainer = self.config["data"], self.config["trainer"]
        return (
            f"out of memory with data.batch_size {data['batch_size']} (a device) at data.image_size {data['image_size']} in "
            f"{trainer['precision']}. Halve data.batch_size: {self.smaller_batches}. Validation takes data.val_batch_size. "
            f"Other ways: --config configs/bf16.yaml, {self.less_memory}"
        )

    def summary(self) -> list[str]:
        """Return the phrases about the last evaluation, and one for the best epoch."""
        best: Any = next((c for c in self.trainer.checkpoint_callbacks if getattr(c, "monitor", None)), None)
        if best is None or best.best_model_score is None:
            return super().summary()
        metric = self.monitor.removeprefix("val/")
        return [*super().summary(), f"best {metric} {best.best_model_score:.3f} in {folder.BEST_CHECKPOINT}"]
