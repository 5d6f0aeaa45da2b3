"""The constants of the recipes for small sets: one row for each start. See ``recipe.py`` for how they are used.

Optimizer, rate and average were chosen by the study of docs/recipe-study.md. What it has not measured is from the
configurations that were written by hand (``origin``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from detector.training.optimizer import OptimizerName

Start = Literal["scratch", "backbone", "detector"]  # what a training starts from
MEASURED = "optimizer, rate and average are measured: docs/results.md, Recipes for small sets"
SMALL_SET = 5_000  # most training images of a small set; larger sets get PUBLISHED
FEWEST_IMAGES = 200  # the smallest set that these configurations are for; smaller ones get more epochs ...
MOST_EPOCHS = 300  # ... but no more than configs/published.yaml has


@dataclass(frozen=True)
class Rule:
    """The settings for one start. Those that depend on the optimizer have a value for each: a user may choose another."""

    origin: str  # where the values are from
    evidence: str  # what is known about them
    reasons: Mapping[str, str]  # why, by field of the recipe
    optimizer: OptimizerName
    lr: Mapping[OptimizerName, float]
    weight_decay: Mapping[OptimizerName, float]
    warmup_bias_lr: Mapping[OptimizerName, float]
    warmup_epochs: float
    nominal_batch: int
    epochs: int  # of sets with FEWEST_IMAGES or more
    mosaic: float
    close_mosaic: int
    ema_share: float | None = None  # length of the average as a share of all steps; None: ema_decay and ema_tau
    ema_decay: float = 0.9999
    ema_tau: float = 2000.0


RATES: dict[OptimizerName, float] = {"musgd": 0.01, "sgd": 0.01, "adamw": 0.001}  # usual ones
WHY = {
    "optimizer": "the optimizer that the network was published with",
    "lr": "the published rate",
    "weight_decay": "the usual one of this optimizer",
    "warmup_epochs": "the published warm-up",
    "warmup_bias_lr": "biases of new layers move first",
    "nominal_batch": "a few hundred images give too few steps with 64",
    "epochs": "without trained weights it takes the whole schedule",
    "mosaic": "every image is joined from four, until mosaic closes",
    "close_mosaic": "the last epochs see whole images, as in prediction",
    "ema_decay": "the published average of the weights",
    "ema_tau": "the published average; in short runs it is nearly the latest weights",
}
WHY_TRAINED = {
    "warmup_epochs": "trained weights need a shorter warm-up",
    "epochs": "trained weights need fewer epochs",
    "mosaic": "half of the images stay whole: the weights know objects already",
}
SCRATCH = Rule(
    origin="configs/published.yaml at twice its rate, the step of configs/finetune.yaml",
    evidence=MEASURED,
    reasons=WHY
    | {
        "optimizer": "better than AdamW on three small sets",
        "lr": "in 30 epochs better than 0.01 on three small sets; in 120 like it",
    },
    optimizer="musgd",
    lr=RATES | {"musgd": 0.02, "adamw": 0.002},
    weight_decay={"musgd": 5e-4, "sgd": 5e-4, "adamw": 0.05},
    warmup_bias_lr={"musgd": 0.1, "sgd": 0.1, "adamw": 0.0},
    warmup_epochs=3.0,
    nominal_batch=16,
    epochs=300,
    mosaic=1.0,
    close_mosaic=10,
    ema_share=0.02,
)
BACKBONE = replace(
    SCRATCH,
    origin="configs/finetune_backbone.yaml at four times its rate",
    evidence=MEASURED,
    reasons=WHY
    | WHY_TRAINED
    | {
        "warmup_bias_lr": "AdamW needs no higher rate of biases at the start",
        "optimizer": "better than MuSGD on three small sets",
        "lr": "better than 0.002 and 0.001 on three small sets",
    },
    optimizer="adamw",
    lr=RATES | {"adamw": 0.004},
    warmup_epochs=1.0,
    epochs=60,
    mosaic=0.5,
    ema_share=None,
)
DETECTOR = replace(
    SCRATCH,
    origin="configs/finetune.yaml at twice its rate",
    evidence=MEASURED,
    reasons=WHY
    | WHY_TRAINED
    | {
        "optimizer": "on three small sets within the spread of AdamW, or above it",
        "lr": "on three small sets at least as good as 0.005",
        "warmup_bias_lr": "the biases are trained already",
    },
    lr=RATES,
    warmup_bias_lr=dict.fromkeys(("musgd", "sgd", "adamw"), 0.0),  # the biases are trained already
    warmup_epochs=1.0,
    epochs=30,
    mosaic=0.5,
    close_mosaic=5,
    ema_share=None,
)
RULES: Mapping[Start, Rule] = {"scratch": SCRATCH, "backbone": BACKBONE, "detector": DETECTOR}

# The schedule of long runs, for sets above SMALL_SET whatever they start from
PUBLISHED = replace(
    SCRATCH,
    origin="configs/published.yaml",
    evidence="the published schedule of long runs",
    reasons=WHY
    | {
        "epochs": "the published schedule is a long one; fewer are often enough for trained weights: give them",
        "nominal_batch": "there are enough steps",
        "ema_tau": "a long run has many thousand steps",
    },
    lr=RATES,
    weight_decay=dict.fromkeys(("musgd", "sgd", "adamw"), 5e-4),
    nominal_batch=64,
    ema_share=None,
)
