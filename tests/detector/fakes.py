"""A detector with fixed detections, and its data: for tests of the code behind the network."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detector.batch import Batch
from detector.imaging.letterbox import fit_letterbox, to_canvas

CATEGORY_IDS = [7, 22, 90]
CLASS_NAMES = ["cat", "dog", "bird"]
IMAGE, CANVAS = (81, 120), (64, 64)  # height, width
Answer = list[tuple[list[float], float, int]]  # detections of an image: x1 y1 x2 y2 in its pixels, score, label


def coco_dict(images: list[int], objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return COCO ground truth for images with ``images`` as ids; ``objects`` are annotations without an id."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": IMAGE[0], "width": IMAGE[1]} for i in images],
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(objects, start=1)],
        "categories": [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, CLASS_NAMES)],
    }


def random_answer(rng: np.random.Generator, num_boxes: int) -> Answer:
    corners = rng.uniform(0, 60, (num_boxes, 2))
    sizes = rng.uniform(4, 20, (num_boxes, 2))
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    return [(box.tolist(), rng.uniform(0.05, 0.95), int(rng.integers(3))) for box in boxes]


def raw_output(answers: list[Answer], num_anchors: int) -> dict[str, Tensor]:
    """Return raw outputs of one branch that decode to ``answers`` with points at 0 and strides of 1."""
    boxes = torch.zeros(len(answers), 4, num_anchors)
    scores = torch.full((len(answers), len(CATEGORY_IDS), num_anchors), -30.0)
    for i, answer in enumerate(answers):
        for j, (box, score, label) in enumerate(answer):
            x1, y1, x2, y2 = to_canvas(np.array([box]), fit_letterbox(IMAGE, CANVAS))[0].tolist()
            boxes[i, :, j] = torch.tensor([-x1, -y1, x2, y2])
            scores[i, label, j] = torch.logit(torch.tensor(score))
    return {"boxes": boxes, "scores": scores}


class RoteDetector(L.LightningModule):
    """Returns fixed detections for each image id; those of the one-to-many branch are the same unless given."""

    class_names, category_ids = CLASS_NAMES, CATEGORY_IDS

    def __init__(self, answers: dict[int, Answer], one2many: dict[int, Answer] | None = None) -> None:
        super().__init__()
        self.answers = {"one2one": answers, "one2many": answers if one2many is None else one2many}
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = (self.weight - 1).square().sum()
        losses = {"train/total": loss, "train/lr": loss, "train/one2one/box": loss}
        self.log_dict(losses, on_step=True, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        ids = [target["image_id"] for target in batch["targets"]]
        answers = {branch: [by_id.get(i, []) for i in ids] for branch, by_id in self.answers.items()}
        num_anchors = max(1, *(len(answer) for per_image in answers.values() for answer in per_image))
        outputs = {branch: raw_output(per_image, num_anchors) for branch, per_image in answers.items()}
        return {**outputs, "points": torch.zeros(num_anchors, 2), "strides": torch.ones(num_anchors)}

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def samples(images: list[int]) -> list[dict[str, Any]]:
    place = fit_letterbox(IMAGE, CANVAS)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    return [
        {"image": torch.zeros(3, *CANVAS, dtype=torch.uint8), "target": {**nothing, "image_id": i, "letterbox": place}}
        for i in images
    ]


def collate(rows: list[dict[str, Any]]) -> Batch:
    return {"images": torch.stack([row["image"] for row in rows]), "targets": [row["target"] for row in rows]}


class RoteData(L.LightningDataModule):
    """The same images for every split, with the ground truth of each."""

    def __init__(self, images: list[int], truth: dict[str, dict[str, Any]], batch_size: int = 2) -> None:
        super().__init__()
        self.images, self.truth, self.batch_size = images, truth, batch_size

    def ground_truth(self, split: str) -> dict[str, Any] | None:
        return self.truth.get(split)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(samples(self.images), self.batch_size, collate_fn=collate)

    val_dataloader = test_dataloader = train_dataloader
