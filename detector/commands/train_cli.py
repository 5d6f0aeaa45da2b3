"""The command line of train.py."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from detector.callbacks import RampedEMA
from detector.callbacks.data_wait import CACHE_ADVICE
from detector.callbacks.of_trainer import callbacks_of
from detector.commands.auto_settings import automatic_keys, given_values, start_of, take_values_of_run
from detector.commands.detector_cli import DetectorCLI
from detector.commands.saved_network import choose_network, complete_run_config, take_network_of
from detector.commands.training_cli import TrainingCLI
from detector.evaluation.coco_eval import METRICS
from detector.network.head import BRANCHES
from detector.network.model import build_detector
from detector.network.replace.block_files import import_blocks
from detector.network.replace.entries import check_entries
from detector.network.replace.generators import isolated_generators
from detector.runs.checks import EVALUATION_SETTINGS, saved_settings
from detector.training.module import PRETRAINED_LR_RATIO
from detector.training.network_settings import check_start, variant_and_overrides
from detector.training.recipe import recipe_for, recipe_table
from detector.training.steps import batches_of_epoch
from detector.weights import NONE, read_weights
from detector.weights.backbone_files import PRETRAINED


class TrainCLI(TrainingCLI, DetectorCLI):
    """Build the training of a detector from configuration files and options, and run or resume it."""

    program = "train.py"
    usage = "python train.py [--help] [--config FILE ...] [--GROUP.OPTION VALUE ...]"
    ignored_settings = EVALUATION_SETTINGS
    default_monitor = "val/AP"
    faster_data = CACHE_ADVICE
    smaller_batches = "model.nominal_batch keeps the images of an optimizer step as they are"
    less_memory = "a smaller data.image_size (with data.augment.multi_scale the largest counts), a smaller model.variant"

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args``; raise ValueError for ``--eval``, which evaluate.py has replaced."""
        super().parse_arguments(parser, args)
        if checkpoint := self.ignored_values.get("eval"):
            command = evaluation_command(sys.argv[1:] if args is None else args, checkpoint)
            raise ValueError(f"train.py only trains; evaluate with\n    {command}")

    def before_instantiate_classes(self) -> None:
        """Let the Trainer know of data without validation, and fill in the settings of the model."""
        if "val_split" in self.config["data"] and self.config["data"]["val_split"] == 0:
            self.config["trainer"]["limit_val_batches"] = 0
        super().before_instantiate_classes()

    def _resolve_model_settings(self) -> None:
        """Fill in the section ``model`` from the checkpoint or weights file.

        When resuming, variant, backbone and overrides come from the checkpoint where the configuration has none, and the
        files to start from are emptied. Otherwise only a missing variant is filled in, see ``choose_network``.
        Raises ValueError for a ``ckpt_path`` that cannot be resumed.
        """
        model, path = self.config["model"], self.config["ckpt_path"]
        if path:
            checkpoint = read_weights(path)
            if not checkpoint.is_checkpoint:
                raise ValueError(
                    f"{path} is a {checkpoint.kind}, which cannot be resumed; start from it with --model.weights"
                )
            # The run goes on with the weights of the checkpoint.
            model["weights"] = model["backbone_weights"] = model["accept_license"] = model["new_parts"] = None
            if model["backbone_lr_ratio"] is None:
                model["backbone_lr_ratio"] = saved_settings(path).get("backbone_lr_ratio")
            take_network_of(model, checkpoint.info)
            take_values_of_run(self.config, path)
            return
        if model["backbone_weights"] not in (None, NONE) and model["backbone_lr_ratio"] is None:
            model["backbone_lr_ratio"] = PRETRAINED_LR_RATIO  # written to config.yaml, for resuming
        if model["variant"] is None:
            choose_network(model)
        complete_run_config(self.config)

    def _choose_automatic_settings(self) -> None:
        """Choose the settings that are auto, now that data and batch size are known."""
        if keys := automatic_keys(self.config):
            self._choose_settings(keys)

    def _choose_settings(self, keys: dict[str, str]) -> None:
        """Set the settings ``keys``, by field of the recipe, in data, network and Trainer and in the configuration."""
        data, trainer, start = self.datamodule, self.trainer, start_of(self.config)
        devices, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        given, limit = given_values(self.config), trainer.limit_train_batches
        batches = batches_of_epoch(data.num_train_samples, data.batch_size * devices, limit)
        is_trial = getattr(trainer, "fast_dev_run", False)  # of a few steps, in one epoch
        steps = accumulated, batches, -1 if is_trial else trainer.max_steps
        recipe = recipe_for(data.num_train_images, data.batch_size, devices, start, given, *steps)
        for name, key in keys.items():
            self.config[key] = getattr(recipe, name)
        # Only what is auto: a given null, as of lr, stays null.
        self.model.choose({name: value for name, value in recipe.model_settings.items() if name in keys})
        if "epochs" in keys and not is_trial:
            trainer.fit_loop.max_epochs = recipe.epochs
        if "mosaic" in keys or "close_mosaic" in keys:
            data.choose_mosaic(**recipe.augment_settings)
        for average in callbacks_of(trainer):
            if isinstance(average, RampedEMA):
                average.choose(**recipe.ema_settings)
        rank_zero_info(recipe_table(recipe, keys, data.num_train_images, start))

    def monitored_names(self) -> list[str]:
        """Return the COCO numbers of each branch, the AP of each class, and the losses."""
        evaluation = self.config_init["evaluation"]
        return self._names_of(evaluation.branches, evaluation.per_class)

    def _names_of(self, branches: Sequence[str], per_class: bool) -> list[str]:
        """Return the names of the numbers that an evaluation of ``branches`` logs."""
        names = []
        for prefix in ("val", *(f"val/{branch}" for branch in branches[1:])):
            names += [f"{prefix}/{metric}" for metric in METRICS]
            if per_class:
                names += [f"{prefix}/AP_class/{name}" for name in self.datamodule.class_names]
        losses = [f"val/{branch}/{term}" for branch in BRANCHES for term in ("box", "cls", "l1")]
        return [*names, "val/total", *losses]

    def _check_monitor(self) -> None:
        """Raise ValueError as all trainings do, and for a number that the settings of the evaluation leave out."""
        evaluation = self.config_init["evaluation"]
        for name, settings in {
            "evaluation.branch to both": (BRANCHES, evaluation.per_class),
            "evaluation.per_class to true": (evaluation.branches, True),
            "evaluation.branch to both and evaluation.per_class to true": (BRANCHES, True),
        }.items():
            if self.monitor not in self.monitored_names() and self.monitor in self._names_of(*settings):
                raise ValueError(f"monitor is {self.monitor}, which this evaluation does not measure; set {name}")
        super()._check_monitor()

    def _check_network_settings(self) -> None:
        """Raise ValueError for wrong settings of the network: now, not after the data are read.

        A network with blocks of the user is built once, and the files of the blocks become ``model.block_files``. So is one
        with settings of dynamic layers: ``where`` must name convolutions. So is one that starts from a file: it must be that
        of its backbone, if pretrain.py wrote it. Without blocks the network needs no memory.
        """
        model = self.config["model"]
        weights = read_weights(model["weights"]) if model["weights"] else None
        num_classes = 1 if weights is None else weights.num_classes  # that of the data is not known yet
        if model["replace"] is not None:
            model["replace"] = check_entries(model["replace"])
        settings = model["variant"], model["overrides"], weights, num_classes, model["backbone"], model["replace"]
        variant, overrides = variant_and_overrides(*settings)
        if entries := (overrides or {}).get("replace"):
            remembered = (weights.info.block_files if weights else {}) | (model["block_files"] or {})
            model["block_files"] = import_blocks(entries, remembered)
        has_start = model["backbone_weights"] not in (None, NONE, PRETRAINED)
        if entries or has_start or "dynamic" in (model["overrides"] or {}):
            with isolated_generators(), torch.device("cpu" if entries else "meta"):
                detector = build_detector(variant, num_classes, **(overrides or {}))
            check_start(detector, model["backbone_weights"], "backbone_weights")


def evaluation_command(args: list[str], checkpoint: str) -> str:
    """Return the command that evaluates ``checkpoint`` with ``args`` of train.py, less ``--eval``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--eval")
    _, other_args = parser.parse_known_args(args)
    return shlex.join(["python", "evaluate.py", checkpoint, *other_args])
