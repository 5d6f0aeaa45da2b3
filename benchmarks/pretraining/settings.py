"""The sizes of the study, its networks, and the settings of its runs as arguments of pretrain.py and train.py."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {  # fields of the configuration that differ from yolo26_n
    "plain": {},
    "experts": {
        "dynamic": {"kind": "mixture", "num_experts": 4, "routing": "sigmoid", "where": "backbone-bottlenecks"},
    },
}
SCRATCH, LITTLE, MUCH = "scratch", "little", "much"
STARTS = (SCRATCH, LITTLE, MUCH)  # of fine-tuning and of detectors: not pre-trained, or pre-trained with so much data
DETECTOR_SETS = ("bccd", "cards")
CLASS_LR = 1e-3  # AdamW, for a step of any number of images
BACKBONE_LR_RATIO = 1.0  # of detectors, also of pre-trained ones, whose default is 0.2: the weights are the only difference
LR_IMAGES = 1024  # model.lr of pretrain.py is for a step of so many images
FRACTAL_LICENSE, FRACTAL_PROVENANCE = "Apache-2.0", "fractals drawn by benchmarks.pretraining.sources"
PATHS = ("data.root", "model.weights", "model.backbone_weights")  # may be elsewhere on another day or machine


@dataclass(frozen=True)
class Sizes:
    """How much data, of which size, how often seen."""

    little: tuple[int, int] = (64, 32)  # classes, images of each class
    much: tuple[int, int] = (256, 128)  # begins with those of ``little``
    val_images: int = 4  # of each class of fractals
    image_side: int = 96  # of the stored images for classification, in px
    class_size: int = 64  # network input of classifiers, in px
    class_batch: int = 64  # images of a step
    much_epochs: int = 4
    labeled: tuple[int, int] = (54, 60)  # most classes, most images of each, in both splits together
    labeled_epochs: int = 20
    detector_size: int = 160  # network input of detectors, in px
    detector_batch: int = 16
    detector_epochs: int = 40

    def epochs(self, amount: str) -> int:
        """Return the epochs of pre-training: the images seen, and so the steps, are the same for both amounts."""
        factor = (self.much[0] * self.much[1]) // (self.little[0] * self.little[1])
        return self.much_epochs * (factor if amount == LITTLE else 1)


FULL = Sizes()
TOY = Sizes(  # to try the commands
    (2, 5), (8, 20), 2, 32, class_size=32, class_batch=4, much_epochs=1, labeled=(2, 20), labeled_epochs=1, detector_size=32,
    detector_epochs=1,
)  # fmt: skip


def run_settings(epochs: int, seed: int) -> dict[str, Any]:
    """Return what all runs share: one CPU, and one validation, after the last epoch."""
    return {
        "data.num_workers": 0,
        "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": epochs,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.enable_progress_bar": "false",
        "seed_everything": seed,
    }


def network_settings(network: str) -> dict[str, Any]:
    """Return the variant of a network and its overrides."""
    fields = NETWORKS[network]
    return {"model.variant": "yolo26_n"} | ({"model.overrides": json.dumps(fields)} if fields else {})


def class_settings(sizes: Sizes, root: Path, network: str, epochs: int, seed: int) -> dict[str, Any]:
    """Return the settings of a run of pretrain.py: AdamW, crops and flips. The seed decides everything else."""
    augment = {"scale": [0.25, 1.0], "auto_augment": None, "color_jitter": 0.0, "erasing": 0.0}
    return run_settings(epochs, seed) | network_settings(network) | {
        "data.root": str(root),
        "data.image_size": sizes.class_size,
        "data.batch_size": sizes.class_batch,
        "data.augment": json.dumps(augment),
        "model.optimizer": "adamw",
        "model.lr": CLASS_LR * LR_IMAGES / sizes.class_batch,
        "model.warmup_epochs": epochs / 20,
    }  # fmt: skip


def pretraining_settings(sizes: Sizes, data: Path, network: str, amount: str, seed: int) -> dict[str, Any]:
    """Return the settings of pre-training with ``amount`` (little, much) of the fractals."""
    about = {"data.license": FRACTAL_LICENSE, "data.provenance": FRACTAL_PROVENANCE}
    return class_settings(sizes, data / amount, network, sizes.epochs(amount), seed) | about


def finetuning_settings(
    sizes: Sizes, data: Path, labeled: str, network: str, weights: Path | None, seed: int
) -> dict[str, Any]:
    """Return the settings of fine-tuning on the labeled set; ``weights`` is None for a start from scratch."""
    start = {"model.weights": str(weights)} if weights else {}
    return class_settings(sizes, data / labeled, network, sizes.labeled_epochs, seed) | start


def detector_settings(sizes: Sizes, root: Path, network: str, weights: Path | None, seed: int) -> dict[str, Any]:
    """Return the settings of a detector, the same for all starts; ``weights`` is None for a start from scratch."""
    epochs = sizes.detector_epochs
    start = {"model.backbone_weights": str(weights)} if weights else {}
    return run_settings(epochs, seed) | network_settings(network) | start | {
        "data.root": str(root),
        "data.test_annotations": "null",
        "data.test_images": "null",
        "data.image_size": sizes.detector_size,
        "data.batch_size": sizes.detector_batch,
        "data.cache": "ram",
        "data.augment": json.dumps({"mosaic": 0.0}),  # a mosaic has several images, but one routing
        "model.nominal_batch": sizes.detector_batch,
        "model.backbone_lr_ratio": BACKBONE_LR_RATIO,
        "model.warmup_epochs": epochs / 10,
    }  # fmt: skip
