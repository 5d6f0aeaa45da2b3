"""A detector that answers with the targets themselves: for tests of everything around the network."""

from typing import Any

import lightning as L
import torch
from torch.nn.utils.rnn import pad_sequence

from data import CocoDataModule
from detector.batch import Batch
from detector.callbacks.coco_evaluation import CocoEvaluation


class PerfectDetector(L.LightningModule):
    """Detects every object exactly where the targets have it, with a score of 0.9, in both branches."""

    def __init__(self, data: CocoDataModule) -> None:
        super().__init__()
        self.class_names, self.category_ids = data.class_names, data.category_ids

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return raw outputs with an anchor for each object, all at 0 and with strides of 1."""
        boxes = pad_sequence([target["boxes"] for target in batch["targets"]], batch_first=True)  # (B, N, 4)
        scores = torch.full((len(boxes), len(self.class_names), max(boxes.shape[1], 1)), -30.0)
        for image_scores, target in zip(scores, batch["targets"]):
            labels = target["labels"]
            image_scores[labels, torch.arange(len(labels))] = torch.logit(torch.tensor(0.9))
        distances = torch.zeros(len(boxes), 4, scores.shape[2])
        distances[:, :, : boxes.shape[1]] = boxes.transpose(1, 2) * torch.tensor([-1.0, -1, 1, 1])[:, None]
        output = {"boxes": distances, "scores": scores}
        points, strides = torch.zeros(scores.shape[2], 2), torch.ones(scores.shape[2])
        return {"one2one": output, "one2many": output, "points": points, "strides": strides}

    test_step = validation_step


def evaluate_perfectly(data: CocoDataModule, folder: Any, split: str = "val", **settings: Any) -> dict[str, float]:
    """Return the metrics of a PerfectDetector on a split, with the files of the evaluation in ``folder``."""
    evaluation = CocoEvaluation("one2one", **settings)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=[evaluation],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    run = trainer.validate if split == "val" else trainer.test
    run(PerfectDetector(data), datamodule=data, verbose=False)
    return evaluation.results["one2one"].metrics
