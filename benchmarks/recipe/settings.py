"""The sets and arms of the study, and the settings of a run as arguments of train.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Start = Literal["scratch", "detector", "backbone"]
SCRATCH: Start = "scratch"
DETECTOR: Start = "detector"
BACKBONE: Start = "backbone"
SOURCE = "source"  # the stage of the detectors whose weights others start from
CURVE = "curve"  # the stage with a validation after every epoch
PATHS = ("data.root", "model.weights", "model.backbone_weights")  # may be elsewhere on another day or machine
SHARES = (0.02, 0.05, 0.1)  # lengths of averages, as shares of all steps; each run has all of them beside the present one


@dataclass(frozen=True)
class ImageSet:
    """A set of photographs, and the run whose weights are the start from a detector."""

    config: str  # describes it; its data.root is replaced
    images: int
    classes: int
    source: str  # another set
    number: Literal["AP", "AP50 of any class"] = "AP"  # the number that decides, NMS-free


SETS = {
    "cards": ImageSet("configs/data/bccd.yaml", 235, 6, source="bccd"),  # the layout of bccd
    "bccd": ImageSet("configs/data/bccd.yaml", 205, 3, source="cards"),
    "coco128": ImageSet("configs/data/coco128.yaml", 128, 80, source="cards", number="AP50 of any class"),
}


@dataclass(frozen=True)
class Sizes:
    """How large the runs are."""

    sets: tuple[str, ...] = tuple(SETS)
    side: int = 160  # of the network input, in px
    epochs: Mapping[str, int] = field(default_factory=lambda: {SCRATCH: 30, DETECTOR: 30, BACKBONE: 20})
    source_epochs: int = 40
    longer: tuple[int, ...] = (2, 4)  # times the epochs, for the question of epochs
    seeds: tuple[int, ...] = (1, 2, 3)
    arms: int = 99  # the first so many of every list
    batches: int | None = None  # of an epoch


FULL = Sizes()
TOY = Sizes(
    ("cards",), 32, {SCRATCH: 2, DETECTOR: 2, BACKBONE: 2}, 1, longer=(2,), seeds=(1, 2), arms=2, batches=2
)  # to try the commands


class Run(NamedTuple):
    """One training of the study. ``arm`` is an arm of the start, ``arm+change``, or the name of a source."""

    stage: str
    start: Start
    data: str
    arm: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """The name of its folder: runs of several stages that train the same have the same one."""
        curve = "_curve" if self.stage == CURVE else ""
        return f"recipe_{self.start}_{self.data}_{self.arm}_e{self.epochs}_s{self.seed}{curve}"


def optimizer(name: str, lr: float, batch: int = 16, **others: Any) -> dict[str, Any]:
    """Return the settings of an optimizer with its usual weight decay and rate of biases at the first step."""
    decay, bias_lr = (0.05, 0.0) if name == "adamw" else (5e-4, 0.1)
    settings = {"optimizer": name, "lr": lr, "nominal_batch": batch, "weight_decay": decay, "warmup_bias_lr": bias_lr}
    return {f"model.{key}": value for key, value in (settings | others).items()}


def mosaic(probability: float, closing: int = 10) -> dict[str, Any]:
    """Return the settings of mosaic."""
    return {"data.augment.mosaic": probability, "data.augment.close_mosaic": closing}


# What the public reference does by itself on small sets, as far as it is known here: AdamW instead of MuSGD, 64 images a
# step, three epochs of warm-up, biases from 0. Its rate depends on the number of classes: `reference_rate`.
REFERENCE = optimizer("adamw", 0.001, 64, momentum=0.9, weight_decay=5e-4, warmup_epochs=3.0) | mosaic(1.0)
BIASES_AT_0 = {"model.warmup_bias_lr": 0.0}

# The configuration of each start when the study was written: configs/base.yaml, finetune.yaml and finetune_backbone.yaml.
# They are written out, so that the study stays the same when the files change.
AVERAGE = {"ema.decay": 0.9999, "ema.tau": 2000}
BY_HAND: Mapping[str, dict[str, Any]] = {
    SCRATCH: AVERAGE | mosaic(1.0) | optimizer("musgd", 0.01, 64, warmup_epochs=3.0),
    DETECTOR: AVERAGE | mosaic(0.5, 5) | optimizer("musgd", 0.005, warmup_epochs=1.0, warmup_bias_lr=0.0),
    BACKBONE: AVERAGE | mosaic(0.5) | optimizer("adamw", 0.001, warmup_epochs=1.0) | {"model.backbone_lr_ratio": 0.2},
}
# By start: the arms, which change its configuration. Those before None are compared on all sets, those after it are other
# rates.
ARMS: Mapping[str, Mapping[str, dict[str, Any] | None]] = {
    SCRATCH: {
        "musgd_0.01": optimizer("musgd", 0.01),
        "adamw_0.001": optimizer("adamw", 0.001),
        "base": {},
        "reference": REFERENCE,
        "": None,
        "adamw_0.002": optimizer("adamw", 0.002),
        "musgd_0.005": optimizer("musgd", 0.005),
        "musgd_0.02": optimizer("musgd", 0.02),
        "adamw_0.0005": optimizer("adamw", 0.0005),
        "musgd_0.04": optimizer("musgd", 0.04),
    },
    DETECTOR: {
        "finetune": {},
        "adamw_0.0005": optimizer("adamw", 0.0005),
        "reference": REFERENCE,
        "": None,
        "adamw_0.001": optimizer("adamw", 0.001),
        "musgd_0.0025": optimizer("musgd", 0.0025) | BIASES_AT_0,
        "musgd_0.01": optimizer("musgd", 0.01) | BIASES_AT_0,
        "musgd_0.02": optimizer("musgd", 0.02) | BIASES_AT_0,
    },
    BACKBONE: {
        "finetune_backbone": {},
        "musgd_0.01": optimizer("musgd", 0.01),
        "reference": REFERENCE,
        "": None,
        "adamw_0.002": optimizer("adamw", 0.002),
        "musgd_0.005": optimizer("musgd", 0.005),
        "musgd_0.02": optimizer("musgd", 0.02),
        "adamw_0.004": optimizer("adamw", 0.004),
        "adamw_0.008": optimizer("adamw", 0.008),
    },
}
# Changes to the winner of a start: one each, without those that it has already
WARMUPS = {f"warmup{epochs:g}": {"model.warmup_epochs": epochs} for epochs in (1.0, 3.0)}
MOSAICS = {f"mosaic{share:g}": {"data.augment.mosaic": share} for share in (0.5, 1.0)}  # closing stays
CHANGES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    SCRATCH: WARMUPS | MOSAICS,
    DETECTOR: WARMUPS | MOSAICS,
    BACKBONE: WARMUPS | MOSAICS,
}
HAND_SET = {SCRATCH: ("musgd_0.01", "base"), DETECTOR: ("finetune",), BACKBONE: ("finetune_backbone",)}


def reference_rate(classes: int) -> float:
    """Return the rate that the public reference chooses for AdamW, as users quote it (its issue 18956)."""
    return round(0.002 * 5 / (4 + classes), 6)


def rivals(start: str) -> list[str]:
    """Return the arms of a start that are compared on all sets, the most valuable first."""
    return list(ARMS[start])[: list(ARMS[start]).index("")]


def other_rates(start: str) -> list[str]:
    """Return the other arms of a start."""
    return list(ARMS[start])[list(ARMS[start]).index("") + 1 :]


def arm_settings(start: str, arm: str) -> dict[str, Any]:
    """Return the settings of an arm; ``musgd_0.01+warmup1`` is an arm with a change."""
    name, _, change = arm.partition("+")
    return BY_HAND[start] | (ARMS[start][name] or {}) | (CHANGES[start][change] if change else {})


def changes_of(start: str, arm: str) -> list[str]:
    """Return the changes of a start that change something in the settings of an arm."""
    settings = arm_settings(start, arm)
    return [name for name, change in CHANGES[start].items() if settings | change != settings]


def is_adamw(start: str, arm: str) -> bool:
    """Return True for an arm with AdamW."""
    return arm_settings(start, arm)["model.optimizer"] == "adamw"


def validation_interval(run: Run) -> int:
    """Return after how many epochs a run is validated: it must be after the last one. In the stage ``curve``, after each."""
    halves = run.epochs // 2 if run.epochs % 2 == 0 else run.epochs
    return 1 if run.stage == CURVE else halves


def run_settings(run: Run, sizes: Sizes, root: Path, weights: Path | None) -> dict[str, Any]:
    """Return the settings of a run; ``weights`` are those of its start."""
    start: dict[str, Any] = {}
    if run.start == DETECTOR:
        start = {"model.weights": str(weights)}
    if run.start == BACKBONE:
        start = {"model.backbone": "timm/efficientnet_lite0", "model.backbone_weights": str(weights)}
    arguments = {"shares": list(SHARES), "every_validation": run.stage == CURVE}
    averages = {"class_path": "benchmarks.recipe.averages.Averages", "init_args": arguments}
    if run.arm.partition("+")[0] == "reference":
        start["model.lr"] = reference_rate(SETS[run.data].classes)
    limit = {} if sizes.batches is None else {"trainer.limit_train_batches": sizes.batches}
    return limit | {
        "model.variant": "yolo26_n",
        "data.root": str(root),
        "data.test_annotations": "null",
        "data.test_images": "null",
        "data.image_size": sizes.side,
        "data.batch_size": 16,
        "data.num_workers": 0,
        "data.cache": "ram",
        "trainer.max_epochs": run.epochs,
        "trainer.check_val_every_n_epoch": validation_interval(run),
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks": json.dumps([averages]),
        "seed_everything": run.seed,
    } | arm_settings(run.start, run.arm) | start  # fmt: skip
