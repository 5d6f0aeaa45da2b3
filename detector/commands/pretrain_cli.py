"""The command line of pretrain.py."""

import torch
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from detector.arguments import AUTO
from detector.callbacks import ClassEvaluation
from detector.callbacks.of_trainer import callbacks_of
from detector.commands.run_cli import CONFIGS
from detector.commands.run_parser import PretrainParser
from detector.commands.saved_network import complete_run_config, info_of_classifier, take_network_of
from detector.commands.training_cli import TrainingCLI
from detector.evaluation.classification import classification_table, totals
from detector.network.classifier import build_classifier
from detector.network.replace.block_files import import_blocks
from detector.network.replace.entries import check_entries
from detector.network.replace.generators import isolated_generators
from detector.report.classifier_advice import start_command
from detector.runs.folder import BEST_CHECKPOINT
from detector.training.classifier_module import ClassifierModule
from detector.training.network_settings import check_start, start_file, variant_and_overrides


class PretrainCLI(TrainingCLI):
    """Build a pre-training from configuration files and options, and run or resume it.

    The data module has the attributes in ``links``, like ``data.ImageFolderDataModule``.
    """

    program = "pretrain.py"
    usage = "python pretrain.py [--help] [--config FILE ...] [--GROUP.OPTION VALUE ...]"
    parser_class = PretrainParser
    module_class = ClassifierModule
    base_config = CONFIGS / "pretrain.yaml"
    links = (
        ("class_names", "class_names"),
        ("size", "image_size"),
        ("sixteen_bit_range", "sixteen_bit_range"),
        ("license", "data_license"),
        ("provenance", "data_provenance"),
    )
    run_prefix = "pretrain_"
    default_monitor = "val/top1"
    faster_data = "store the images once at about 256 pixels (docs/pretraining.md)"
    smaller_batches = "the learning rate follows the images of a step, and model.nominal_batch keeps their number"
    less_memory = "a smaller data.image_size, a smaller model.variant"

    def monitored_names(self) -> list[str]:
        """Return the shares of correct images, and the loss."""
        return ["val/top1", "val/top5", "val/loss"]

    def add_evaluation(self, parser: LightningArgumentParser) -> None:
        """Add the evaluation of a classifier."""
        parser.add_lightning_class_args(ClassEvaluation, "evaluation")

    def before_instantiate_classes(self) -> None:
        """Refuse an average that train.py would choose, then do what every training does."""
        ema = self.config["ema"]
        if AUTO in (ema["decay"], ema["tau"]):
            raise ValueError("ema.decay and ema.tau: auto is chosen by train.py, for detectors; give pretrain.py numbers")
        super().before_instantiate_classes()

    def _resolve_model_settings(self) -> None:
        """Fill in the section ``model`` from the checkpoint or weights file.

        When resuming, what the configuration leaves open comes from the checkpoint, and the file to start from is emptied.
        Otherwise only a missing variant is filled in: that of the weights file, or dyn_n.
        """
        model, path = self.config["model"], self.config["ckpt_path"]
        if path:
            model["weights"] = model["accept_license"] = None  # the run goes on with the weights of the checkpoint
            take_network_of(model, info_of_classifier(path))
            return
        if model["variant"] is None:
            start = start_file(model["weights"])
            model["variant"] = "dyn_n" if start is None else start.info.variant
        complete_run_config(self.config)

    def _check_network_settings(self) -> None:
        """Raise ValueError for wrong settings of the network: now, not after the data are read.

        The network is built once; without blocks of the user it needs no memory. The files of the blocks become
        ``model.block_files``.
        """
        model = self.config["model"]
        if model["replace"] is not None:
            model["replace"] = check_entries(model["replace"])
        start = start_file(model["weights"])
        settings = model["variant"], model["overrides"], start, 1, model["backbone"], model["replace"]
        variant, overrides = variant_and_overrides(*settings)
        if entries := (overrides or {}).get("replace"):
            remembered = (start.info.block_files if start else {}) | (model["block_files"] or {})
            model["block_files"] = import_blocks(entries, remembered)
        with isolated_generators(), torch.device("cpu" if entries else "meta"):
            classifier = build_classifier(variant, 2, model["dropout"], model["drop_path"], **(overrides or {}))
        check_start(classifier, model["weights"])

    @property
    def evaluation(self) -> ClassEvaluation:
        """The callback that evaluates."""
        return next(callback for callback in callbacks_of(self.trainer) if isinstance(callback, ClassEvaluation))

    def results_table(self) -> str:
        """Return top-1, top-5 and the top-1 of the classes; empty without an evaluation."""
        return classification_table(self.evaluation.results) if self.evaluation.results else ""

    def results_summary(self) -> list[str]:
        """Return top-1 and top-5."""
        results = self.evaluation.results
        return [f"{name} {value:.3f}" for name, value in totals(results).items()] if results else []

    @rank_zero_only
    def print_results(self) -> None:
        """Print the results, and the command that starts a detector from them."""
        super().print_results()
        if (best := self.run_dir / BEST_CHECKPOINT).is_file():
            print(f"start a detector: {start_command(best)}")
