"""Sheets of the images that training and evaluation see, with their boxes."""

from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader

from data.datamodule import CocoDataModule
from data.dataset import Sample
from detector.imaging.draw import draw_boxes, fit_longer_side, sheet
from detector.text import plural

COLUMNS = 4
SIDE = 400  # pixels of the longer side on the sheet


def write_sheets(data: CocoDataModule, folder: Path, num_images: int = 16) -> list[Path]:
    """Write the first samples of an epoch as ``train.jpg``, ``val.jpg`` and, if that split exists, ``test.jpg``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split in data.annotations:
        loader = data.train_dataloader() if split == "train" else data.eval_dataloader(split)  # type: ignore[arg-type]  # a split
        path = folder / f"{split}.jpg"
        cv2.imwrite(str(path), draw_sheet(loader, data.class_names, num_images)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


def draw_sheet(loader: DataLoader, class_names: list[str], num_images: int) -> np.ndarray:
    """Return one RGB image of the first samples of ``loader``, in its order."""
    drawn, captions = [], []
    for _, key in zip(range(num_images), loader.sampler):
        sample: Sample = loader.dataset[key]
        target = sample.target
        image, boxes = fit_longer_side(sample.image, target["boxes"].numpy(), SIDE)
        drawn.append(draw_boxes(image, boxes, target["labels"].numpy(), class_names))
        height, width = sample.image.shape[:2]
        captions.append(f"image {target['image_id']}: {plural(len(boxes), 'object')}, {width} x {height}")
    rows = [drawn[i : i + COLUMNS] for i in range(0, len(drawn), COLUMNS)]
    return sheet(rows, [captions[i : i + COLUMNS] for i in range(0, len(drawn), COLUMNS)])
