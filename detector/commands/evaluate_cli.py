"""The command line of evaluate.py."""

import sys
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from detector.callbacks import NonFiniteGuard, RampedEMA
from detector.commands.detector_cli import DetectorCLI
from detector.commands.options import OVERLAP_HELP
from detector.commands.programs import is_of_pretraining
from detector.files import read_yaml
from detector.imaging.sixteen_bits import FULL_RANGE
from detector.imaging.tiles import DEFAULT_OVERLAP, as_optional_tiling
from detector.network.replace.entries import check_entries
from detector.runs.checks import check_classes
from detector.runs.folder import CONFIG, evaluation_file, evaluation_folder
from detector.runs.launch import inherited_run_dir
from detector.runs.old_report import set_aside_message, set_aside_report
from detector.training.module import DetectorModule
from detector.weights import Weights, read_weights


class EvaluateCLI(DetectorCLI):
    """Build the evaluation of a checkpoint or weights file on the data of a configuration, and run it."""

    usage = "python evaluate.py CKPT [--help] [--config FILE ...] [--split val|test] [--GROUP.OPTION VALUE ...]"
    # eval comes from an evaluation.yaml, the others from the config.yaml of a training.
    ignored_settings = ("ckpt_path", "auto_batch_size", "eval", "monitor", "monitor_mode", "patience")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add checkpoint and options, and accept the sections of a training, from which nothing is built."""
        parser.add_argument("checkpoint", metavar="CKPT", type=str, help="checkpoint or weights file, as <run>/best.ckpt")
        parser.add_argument("--split", type=Literal["val", "test"], default="val", help="the data to evaluate on")
        parser.add_argument("--run_dir", type=str | None, help="folder to write to; by default eval_<split> beside CKPT")
        flip_help = "detect in the mirrored images, too, and merge both; the same as --evaluation.flip_test true"
        parser.add_argument("--flip_test", action="store_true", help=flip_help)
        tile_help = "cut images into tiles of so many pixels (one side, or [height, width]) and detect in each"
        parser.add_argument("--tile", type=int | tuple[int, int] | None, default=None, help=tile_help)
        parser.add_argument("--overlap", type=float | None, default=None, help=OVERLAP_HELP)
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(RampedEMA, "ema", instantiate=False)
        parser.add_class_arguments(NonFiniteGuard, "guard", instantiate=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args``; leave out the default overlap that an evaluation.yaml of earlier versions has without tiles."""
        super().parse_arguments(parser, args)
        words = sys.argv[1:] if args is None else args
        is_given = any(str(word).partition("=")[0] == "--overlap" for word in words)
        if self.config["tile"] is None and self.config["overlap"] == DEFAULT_OVERLAP and not is_given:
            self.config["overlap"] = None

    def before_instantiate_classes(self) -> None:
        """Fill in the settings of the model, and choose the folder of the evaluation."""
        self.checkpoint, self.split = self.config["checkpoint"], self.config["split"]
        if self.config["flip_test"]:
            self.config["evaluation"]["flip_test"] = True
        self.tiling = as_optional_tiling(self.config["tile"], self.config["overlap"], "--")
        self.config["overlap"] = None if self.tiling is None else self.tiling.overlap
        self._check_that_data_are_given()
        self._evaluate_all_images()
        self._resolve_model_settings()
        self.run_dir = inherited_run_dir() or evaluation_folder(Path(self.checkpoint), self.split, self.config["run_dir"])

    def _evaluate_all_images(self) -> None:
        """Leave out a limit of 0 batches: it is of a training without validation."""
        for name in ("limit_val_batches", "limit_test_batches"):
            if self.config["trainer"][name] == 0:
                rank_zero_info(f"trainer.{name} is 0, which is for trainings: all images are evaluated")
                self.config["trainer"][name] = None

    def _check_that_data_are_given(self) -> None:
        """Raise ValueError if the data are the default and not there, and the folder of CKPT has the configuration."""
        root, config = Path(self.config["data"]["root"]), Path(self.checkpoint).parent / CONFIG
        is_default = not self.config["config"] and root == Path("datasets/coco") and not root.exists()
        if is_default and config.is_file() and not is_of_pretraining(read_yaml(config, "restore it, or move it away")):
            raise ValueError(f"the data to evaluate on are not given; those of the training are in --config {config}")

    def _resolve_model_settings(self) -> None:
        """Fill in the section ``model`` from CKPT, and set ``trained_size``.

        A checkpoint sets variant and overrides, and leaves weights empty: ``evaluate`` loads it. Another weights file
        becomes ``model.weights``, and sets the variant only if the configuration has none. Raises ValueError if CKPT cannot
        be read.
        """
        model, weights = self.config["model"], read_weights(self.checkpoint)
        backbone = weights.info.overrides.get("backbone", "yolo26")
        if model["backbone"] not in (None, backbone):
            rank_zero_info(f"{self.checkpoint} has the backbone {backbone}: model.backbone {model['backbone']} is not used")
        model["backbone"] = model["backbone_weights"] = model["accept_license"] = model["new_parts"] = None
        self._use_replaced_modules_of(weights)
        self.trained_size, variant = weights.info.image_size, weights.info.variant
        self._resolve_sixteen_bit_range(weights.info.sixteen_bit_range)
        if not weights.is_checkpoint:
            model["weights"], model["variant"] = self.checkpoint, model["variant"] or variant
            return
        if model["variant"] not in (None, variant):
            rank_zero_info(f"{self.checkpoint} is a {variant}: model.variant {model['variant']} is not used")
        model["weights"], model["variant"], model["overrides"] = None, variant, weights.info.overrides

    def _use_replaced_modules_of(self, weights: Weights) -> None:
        """Leave the replaced modules to CKPT: others would be evaluated untrained."""
        model = self.config["model"]
        overrides = dict(model["overrides"] or {})
        from_overrides = overrides.pop("replace", None)
        given = check_entries(from_overrides if model["replace"] is None else model["replace"])
        if given and given != check_entries(weights.info.overrides.get("replace")):
            rank_zero_info(f"{self.checkpoint} has replaced modules of its own, or none: model.replace is not used")
        model["replace"], model["overrides"] = None, overrides or None
        model["block_files"] = weights.info.block_files or None

    def _resolve_sixteen_bit_range(self, trained: tuple[int, int] | None) -> None:
        """Fill in ``data.sixteen_bit_range`` from CKPT. Raises ValueError if the configuration has another one."""
        data = self.config["data"]
        if data["sixteen_bit_range"] is None:
            data["sixteen_bit_range"] = trained
        elif tuple(data["sixteen_bit_range"]) != (trained or FULL_RANGE):
            raise ValueError(
                f"data.sixteen_bit_range is {list(data['sixteen_bit_range'])}, but {self.checkpoint} was trained with "
                f"{list(trained or FULL_RANGE)}; leave it out, and that of the training is used"
            )

    def after_instantiate_classes(self) -> None:
        """Check that the data have the split and the classes of the checkpoint."""
        super().after_instantiate_classes()
        self.datamodule.check_split(self.split)
        self.datamodule.tiling = self.tiling
        check_classes(self.checkpoint, self.model.class_names, self.model.category_ids)

    def evaluate(self) -> None:
        """Evaluate, and write predictions, ground truth and the settings of the evaluation."""
        model = self.model  # a weights file is already loaded; a checkpoint must be loaded here
        if not self.config["model"]["weights"]:
            model = DetectorModule.load_from_checkpoint(self.checkpoint, map_location="cpu", weights_only=True)
        run = self.trainer.validate if self.split == "val" else self.trainer.test
        with self.run_environment():
            run(model, datamodule=self.datamodule, verbose=False)
        if self.config["evaluation"]["predictions"]:
            self._rename_report_and_write_config()

    @rank_zero_only
    def _rename_report_and_write_config(self) -> None:
        """Rename an earlier report, and write the resolved configuration for the next one, with CKPT as entry ``eval``."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if renamed := set_aside_report(self.run_dir):
            rank_zero_info(set_aside_message(renamed))
        settings = yaml.safe_load(self.config_text())
        settings["eval"] = str(Path(settings.pop("checkpoint")).resolve())  # for a report from another working directory
        (self.run_dir / evaluation_file(self.split)).write_text(yaml.safe_dump(settings, sort_keys=False))

    def memory_advice(self) -> str:
        """Return the settings that ran out of memory, and settings that need less."""
        data = self.config["data"]
        size = data["val_batch_size"] or data["batch_size"]
        return f"out of memory with data.val_batch_size {size} at data.image_size {data['image_size']}: give a smaller one"

    @rank_zero_only
    def print_results(self) -> None:
        """Print the results, and a note if the weights were trained at another input size."""
        super().print_results()
        size = tuple(self.datamodule.size)
        if self.trained_size not in (None, size):
            rank_zero_info(
                f"these numbers are of an input of {size} (height, width), but training had {self.trained_size}. "
                f"AP may be far lower. For the input size of the training add --data.image_size '{list(self.trained_size)}'"
            )
