"""Evaluation of a classifier during validation and testing: results by class, confusions, mistakes."""

import json
import time
from pathlib import Path
from typing import Any, cast

import lightning as L

from detector.arguments import as_whole_number
from detector.batch import ClassBatch
from detector.callbacks.epoch_log import EpochLog
from detector.callbacks.gather import gather
from detector.callbacks.of_trainer import callbacks_of, data_module_of
from detector.evaluation.classification import ClassPredictions, classification_results
from detector.files import atomic_write
from detector.runs.folder import classification_file


class ClassEvaluation(L.Callback):
    """Writes ``classification.json`` into ``trainer.default_root_dir`` after every validation, for the report.

    It has top-1 and top-5, the accuracy of each class, the most frequent confusions, the mistakes with the highest scores
    and their images, and images per second; see ``detector.evaluation.classification.classification_results``. A test
    writes ``classification_test.json``. ``results`` holds the last ones, on rank 0. The sanity check is not evaluated.

    The module logs top-1 and top-5. Its ``validation_step`` returns the logits (B, C), and it has ``class_names``. Batches
    are ``detector.batch.ClassBatch``. An image that comes twice counts once: a sampler repeats some, so that all processes
    get the same number of images.

    Args:
        num_confusions: how many pairs of classes are written at most.
        num_mistakes: how many mistakes are written at most.
        write: False writes no file.
    """

    epoch_columns = ("top1", "top5")  # of train.log

    def __init__(self, num_confusions: int = 50, num_mistakes: int = 24, write: bool = True) -> None:
        for name, value in (("num_confusions", num_confusions), ("num_mistakes", num_mistakes)):
            as_whole_number(value, f"{name} of the evaluation", least=0)
        self.num_confusions, self.num_mistakes, self.write = num_confusions, num_mistakes, write
        self.results: dict[str, Any] = {}
        self._parts: list[ClassPredictions] = []
        self._started = 0.0
        self._training_speed: dict[str, float] = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._parts, self._training_speed, self._started = [], _training_speed(trainer), time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: ClassBatch,
        batch_idx: int = 0,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of the batch."""
        if not trainer.sanity_checking:
            self._parts.append(ClassPredictions.of_logits(outputs, batch["labels"], batch["indices"]))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the results of all processes, and write them, on rank 0."""
        if trainer.sanity_checking:
            return
        parts = [part for parts in gather(self._parts, trainer) for part in parts]
        self._parts = []
        if not parts:  # another rank, or no batches
            return
        split, predictions = "test" if trainer.testing else "val", ClassPredictions.joined(parts)
        speed = round(len(predictions) / max(time.perf_counter() - self._started, 1e-9), 1)
        data = data_module_of(trainer)
        has_names = hasattr(data, "image_name") and hasattr(data, "image_folder")
        image_name = (lambda number: data.image_name(split, number)) if has_names else str
        settings = self.num_confusions, self.num_mistakes
        self.results = {
            "split": split,
            "epoch": trainer.current_epoch + 1,
            "folder": str(data.image_folder(split).resolve()) if has_names else None,
            "images_per_second": self._training_speed | {"validation": speed},
            **classification_results(predictions, cast(Any, pl_module).class_names, image_name, *settings),
        }
        if self.write:
            with atomic_write(Path(trainer.default_root_dir) / classification_file(split)) as path:
                path.write_text(json.dumps(self.results, indent=1) + "\n")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def _training_speed(trainer: L.Trainer) -> dict[str, float]:
    """Return the images per second of the training in this epoch so far, if EpochLog counts them."""
    log = next((callback for callback in callbacks_of(trainer) if isinstance(callback, EpochLog)), None)
    is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
    return {"training": round(log.images_per_second(trainer), 1)} if log is not None and is_training else {}
