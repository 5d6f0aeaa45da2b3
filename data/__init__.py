"""COCO-format data in, batches out. Used from a clone; ``detector`` never imports it."""

import os

# Albumentations asks the network for a newer version of itself when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from data.annotations import Annotations
from data.coco import read_coco
from data.datamodule import CocoDataModule
from data.transforms import Augmentation

__all__ = ["Annotations", "Augmentation", "CocoDataModule", "read_coco"]
