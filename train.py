"""Train or evaluate a detector: ``python train.py --config configs/dyn_n.yaml``.

Configuration files are merged in the order given, over ``configs/base.yaml``, and any value can be set on the command
line: ``--model.lr 0.02``. ``--ckpt_path`` resumes, ``--eval CKPT`` only evaluates.
"""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from data import CocoDataModule
from detector import DetectorModule
from detector.callbacks import RampedEMA
from detector.coco_metrics import coco_table
from detector.data_wait import DataWait
from detector.evaluation import CocoEvaluation
from detector.routing import RoutingLog
from detector.run_log import EpochLog, PredictionSheet
from detector.weights import read_weights

BASE_CONFIG = Path(__file__).parent / "configs" / "base.yaml"
RUN_DIR_VARIABLE = "DETECTOR_RUN_DIR"  # tells the processes that Lightning starts where their parent writes
# Resuming with others makes no sense: other weights, or others that are trained.
FIXED_BY_CHECKPOINT = ("variant", "overrides", "class_names", "category_ids", "optimizer", "freeze", "lr_ratios")


class DetectorCLI(LightningCLI):
    """Builds everything from the configuration, and decides where the run is written."""

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            DetectorModule,
            CocoDataModule,
            save_config_callback=None,  # it refuses a used folder, also to resume in; see write_config
            parser_kwargs={"default_config_files": [str(BASE_CONFIG)], "allow_abbrev": False},
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hyperparameters are what __init__ received, linked values included
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is ours beside Lightning's trainer, model and data."""
        parser.add_argument("--run_dir", type=str | None, help="folder of the run; by default runs/<variant>, numbered")
        parser.add_argument("--ckpt_path", type=str | None, help="checkpoint of ours to resume from, <run>/last.ckpt")
        parser.add_argument("--eval", type=str | None, help="only evaluate this checkpoint, with the data of the config")
        parser.add_argument("--split", type=Literal["val", "test"], default="val", help="what --eval evaluates on")
        parser.add_lightning_class_args(RampedEMA, "ema")
        parser.add_lightning_class_args(CocoEvaluation, "evaluation")
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
        data = self.config["data"]
        may_have_test = data["test_annotations"] is not None or data["root"].endswith((".yaml", ".yml"))
        if self.config["eval"] and self.config["split"] == "test" and not may_have_test:
            raise ValueError("--split test needs data.test_annotations and data.test_images")
        settle_network(self.config)
        self.run_dir = choose_run_dir(self.config)
        self.attempt = 1 + len(list(self.run_dir.glob("config*.yaml")))

    def after_instantiate_classes(self) -> None:
        """Check what only shows once model and data are there."""
        largest = self.model.model.strides[-1]
        if any(side % largest for side in self.datamodule.size):
            raise ValueError(
                f"data.image_size is {self.datamodule.size}; both sides must be multiples of {largest}, the largest stride "
                f"of {self.config['model']['variant']}"
            )
        if path := self.config["ckpt_path"]:
            check_resumable(path, dict(self.model.hparams), self.trainer.max_epochs)
        if path := self.config["eval"]:
            check_classes(path, self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer write into the run folder."""
        return super().instantiate_trainer(default_root_dir=str(self.run_dir), logger=self._loggers(), **kwargs)

    def _loggers(self) -> list[Logger]:
        configured = self.config_init["trainer"]["logger"]
        if configured is False or self.config["eval"]:
            return []
        version = "" if self.attempt == 1 else f"resumed-{self.attempt}"  # the CSV logger would delete the old file
        own = [CSVLogger(self.run_dir, "", version), TensorBoardLogger(self.run_dir, "", "tensorboard")]
        return own if configured in (None, True) else own + (configured if isinstance(configured, list) else [configured])

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if self.config["eval"]:
            callbacks = [c for c in callbacks if not isinstance(c, RampedEMA)]  # the checkpoint holds the average already
        else:
            callbacks += [DataWait(), EpochLog(), *checkpoints(self.run_dir, config)]
        callbacks += [PredictionSheet(), RoutingLog()]
        if config["enable_progress_bar"] is None:
            config["enable_progress_bar"] = sys.stderr.isatty()
        if config["enable_progress_bar"]:
            callbacks.append(TQDMProgressBar(refresh_rate=20))
        return super()._instantiate_trainer(config, callbacks)


def settle_network(config: Any) -> None:
    """Decide what the settings of the model leave open: what is not given comes from the checkpoint or the weights file.

    A run that is resumed or evaluated does not need the weights that it started from: they are in the checkpoint.
    """
    model, path = config["model"], config["ckpt_path"] or config["eval"]
    if path is not None:
        model["weights"] = None
        saved = read_weights(path).info
        model["variant"] = model["variant"] or saved.variant
        if "class_channels" in saved.overrides:  # taken over from the weights when the run began
            model["overrides"] = {"class_channels": saved.overrides["class_channels"]} | (model["overrides"] or {})
    elif model["variant"] is None:
        model["variant"] = "dyn_n" if model["weights"] is None else read_weights(model["weights"]).info.variant


def choose_run_dir(config: Any) -> Path:
    """Return the folder to write to: never one in use, unless its own run is resumed or evaluated."""
    if inherited := os.environ.get(RUN_DIR_VARIABLE):
        return Path(inherited)
    if config["eval"]:
        folder = Path(config["run_dir"] or Path(config["eval"]).parent / f"eval_{config['split']}")
    elif config["ckpt_path"]:
        folder = Path(config["run_dir"] or Path(config["ckpt_path"]).parent)
    else:
        given = config["run_dir"] or config["trainer"]["default_root_dir"]
        folder = wanted = Path(given or Path("runs") / config["model"]["variant"])
        number = 2
        while folder.exists() and any(folder.iterdir()):
            folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder


def checkpoints(run_dir: Path, trainer: dict[str, Any]) -> list[ModelCheckpoint]:
    """Return what writes ``last.ckpt`` after every epoch and, if there is a validation to judge by, ``best.ckpt``."""
    if trainer["enable_checkpointing"] is False:
        return []
    last = ModelCheckpoint(run_dir, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    best = ModelCheckpoint(run_dir, "best", monitor="val/AP", mode="max", enable_version_counter=False)
    # The best one first: the last one then holds what the best one knows, which a resumed run goes by.
    return [last] if trainer["limit_val_batches"] == 0 else [best, last]


def check_resumable(path: str, hparams: dict[str, Any], max_epochs: int) -> None:
    """Refuse to resume another network or other classes, and say which other settings of the model differ."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    saved = checkpoint.get("hyper_parameters", {})
    differing = {name: (saved.get(name), value) for name, value in hparams.items() if saved.get(name) != value}
    lines = "\n".join(f"    {name}: {old} in the checkpoint, {new} here" for name, (old, new) in differing.items())
    if any(name in differing for name in FIXED_BY_CHECKPOINT):
        raise ValueError(f"{path} cannot be resumed with this configuration; set the model as it was:\n{lines}")
    if differing:
        rank_zero_info(f"resuming {path} with other settings:\n{lines}")
    if checkpoint["epoch"] + 1 >= max_epochs > 0:
        rank_zero_info(f"{path} is from the end of a run of {max_epochs} epochs: nothing is left to train")


def check_classes(path: str, model: DetectorModule) -> None:
    """Refuse to evaluate a checkpoint on data with other classes than its own; ``model`` has those of the data."""
    saved = torch.load(path, map_location="cpu", weights_only=True)["hyper_parameters"]
    if (saved["class_names"], saved["category_ids"]) != (model.class_names, model.category_ids):
        raise ValueError(
            f"{path} knows the classes {dict(zip(saved['category_ids'], saved['class_names']))}, but the data have "
            f"{dict(zip(model.category_ids, model.class_names))}; evaluate on data with the same classes"
        )


@rank_zero_only
def write_config(cli: DetectorCLI) -> None:
    """Write the resolved configuration beside the run; a resumed run's goes into a file of its own."""
    cli.run_dir.mkdir(parents=True, exist_ok=True)
    name = "config.yaml" if cli.attempt == 1 else f"config-{cli.attempt}.yaml"
    cli.parser.save(cli.config, cli.run_dir / name)


def fit(cli: DetectorCLI) -> None:
    """Train, and say at the end what came out and where it is."""
    write_config(cli)
    os.environ[RUN_DIR_VARIABLE] = str(cli.run_dir)
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config["ckpt_path"], weights_only=True)
    finally:
        del os.environ[RUN_DIR_VARIABLE]
    report(cli)


def evaluate(cli: DetectorCLI) -> None:
    """Evaluate the checkpoint ``--eval`` on the validation or test data and print the table."""
    model = DetectorModule.load_from_checkpoint(cli.config["eval"], map_location="cpu", weights_only=True)
    judge = cli.trainer.validate if cli.config["split"] == "val" else cli.trainer.test
    judge(model, datamodule=cli.datamodule, verbose=False)
    report(cli)


@rank_zero_only
def report(cli: DetectorCLI) -> None:
    """Print the table of the last evaluation, and one line that says what came out and where it is."""
    evaluation = next(c for c in cli.trainer.callbacks if isinstance(c, CocoEvaluation))
    if evaluation.results:
        print(coco_table(evaluation.results))
    values = [f"{branch} AP {result.metrics['AP']:.3f}" for branch, result in evaluation.results.items()]
    best = next((c for c in cli.trainer.checkpoint_callbacks if c.monitor), None)
    if best is not None and best.best_model_score is not None:
        values.append(f"best AP {best.best_model_score:.3f} in best.ckpt")
    there = ", ".join(sorted(path.name for path in cli.run_dir.iterdir() if path.is_file() and path.suffix != ".yaml"))
    print(f"report: python -m detector report {cli.run_dir}")
    print(f"done: {', '.join(values) or 'no evaluation'}; everything is in {cli.run_dir}: {there}")
    for picture in cli.run_dir.glob("*_predictions.jpg"):
        print(f"look at {picture}")


def quieten() -> None:
    """Keep hints that do not apply here out of the log."""
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*exists and is not empty.*",
        ".*module.s. in eval mode at the start of training.*",  # frozen parts are to be
        ".*LeafSpec.*",
        "(?s).*was deprecated in v4.*",  # of jsonargparse, inside LightningCLI
        "(?s).*JsonargparseDeprecationWarning.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.getMessage())


def main(args: list[str] | None = None) -> None:
    """Parse ``args`` (by default the command line) and train or evaluate; mistakes in them exit with a message."""
    quieten()
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
    main()
