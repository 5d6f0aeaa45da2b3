"""The command line that train.py and evaluate.py share: a detector, and its COCO evaluation."""

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

from detector.callbacks import CocoEvaluation, PredictionSheet
from detector.callbacks.of_trainer import callbacks_of
from detector.commands.auto_settings import DetectorTrainer
from detector.commands.run_cli import CONFIGS, RunCLI
from detector.evaluation import coco_table
from detector.training.module import DetectorModule


class DetectorCLI(RunCLI):
    """Build a detector and its COCO evaluation; the data module has the attributes of ``data.CocoDataModule``."""

    module_class = DetectorModule
    run_trainer_class = DetectorTrainer
    base_config = CONFIGS / "base.yaml"
    links = (
        ("class_names", "class_names"),
        ("category_ids", "category_ids"),
        ("size", "image_size"),
        ("sixteen_bit_range", "sixteen_bit_range"),
    )

    def after_instantiate_classes(self) -> None:
        """Fill in the share of the training images that the data hold out: config.yaml has what was done."""
        super().after_instantiate_classes()
        if "val_split" in self.config["data"]:  # not with another data module
            self.config["data"]["val_split"] = self.datamodule.val_split

    def add_evaluation(self, parser: LightningArgumentParser) -> None:
        """Add the COCO evaluation, and the sheet of images."""
        parser.add_lightning_class_args(CocoEvaluation, "evaluation")
        parser.add_class_arguments(PredictionSheet, "sheet")  # built by callbacks(), which sets its place among them

    def sheets(self) -> list[Callback]:
        """Return the sheet that shows ground truth beside detections."""
        return [self.config_init["sheet"]]

    @property
    def evaluation(self) -> CocoEvaluation:
        """The callback that evaluates."""
        return next(callback for callback in callbacks_of(self.trainer) if isinstance(callback, CocoEvaluation))

    def results_table(self) -> str:
        """Return the twelve COCO numbers of each branch; empty without an evaluation."""
        return coco_table(self.evaluation.results) if self.evaluation.results else ""

    def results_summary(self) -> list[str]:
        """Return one phrase for the AP of each branch, with the score threshold of its best F1."""
        results = self.evaluation.results.items()
        points = {branch: result.best_f1 for branch, result in results}
        best_f1 = {branch: f" (best F1 {p.f1:.3f} at the score {p.threshold})" for branch, p in points.items() if p}
        return [f"{branch} AP {result.metrics['AP']:.3f}{best_f1.get(branch, '')}" for branch, result in results]
