"""Loads data sets (COCO format, YOLO labels, class folders) as batches. Used from a clone; ``detector`` never imports it."""

import os

# On import, albumentations asks a server for a newer version of itself unless this is set.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from data.annotations import Annotations
from data.classification.augmentation import ClassAugmentation
from data.classification.datamodule import ImageFolderDataModule
from data.coco import read_coco
from data.datamodule import CocoDataModule
from data.transforms import Augmentation

__all__ = ["Annotations", "Augmentation", "ClassAugmentation", "CocoDataModule", "ImageFolderDataModule", "read_coco"]
