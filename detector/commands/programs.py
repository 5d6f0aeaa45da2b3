"""The programs that train, and the settings that one of them has and the other has not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Program:
    """A program, what it does, and settings that tell it from the other one."""

    name: str
    purpose: str
    settings: tuple[str, ...]


TRAIN = Program(
    "train.py",
    "trains detectors, on images with boxes",
    (
        *("sheet", "evaluation.branch", "evaluation.ground_truth", "evaluation.score_threshold", "evaluation.iou_threshold"),
        *("evaluation.max_detections", "evaluation.predictions", "evaluation.per_class", "evaluation.backend"),
        *("model.box_gain", "model.class_gain", "model.l1_gain", "model.class_lr_ratio"),
        *("model.lr_decay", "model.warmup_bias_lr", "model.warmup_momentum", "model.backbone_weights", "model.new_parts"),
        *("model.backbone_lr_ratio", "model.lr_ratios", "data.cache", "data.rect", "data.single_cls", "data.transforms"),
        *("data.test_annotations", "data.test_images", "data.augment.mosaic", "data.augment.close_mosaic"),
    ),
)
PRETRAIN = Program(
    "pretrain.py",
    "pre-trains classifiers, on images in a folder for each class",
    (
        *("evaluation.num_confusions", "evaluation.num_mistakes", "evaluation.write"),
        *("model.label_smoothing", "model.layer_decay", "model.dropout", "model.drop_path"),
        *("data.train", "data.val", "data.val_share", "data.crop_pct", "data.check"),
        *("data.license", "data.provenance", "data.augment.auto_augment", "data.augment.erasing", "data.augment.cutmix"),
    ),
)


def setting_of_other_program(key: str, program: Program) -> str | None:
    """Return a sentence if ``key``, as "data.rect" or "--data.rect", is a setting of another program than ``program``."""
    for other in (TRAIN, PRETRAIN):
        name = key.lstrip("-")
        if other is not program and any(name == known or name.startswith(f"{known}.") for known in other.settings):
            return f"{name} is a setting of {other.name}, which {other.purpose}; {program.name} {program.purpose}"
    return None


def check_program(configs: Mapping[Path, Any], program: Program) -> None:
    """Raise ValueError, with the file, for a configuration of another program than ``program``."""
    for path, content in configs.items():
        for key in _keys(content):
            if sentence := setting_of_other_program(key, program):
                raise ValueError(f"--config {path}: {sentence}")


def explain_unknown(message: str, program: Program) -> str:
    """Return the ``message`` about an unknown option or key, with a sentence if it belongs to another program."""
    match = re.match(r"unknown (?:option|key) (\S+?)(?:;|$)", message, re.M)
    sentence = setting_of_other_program(match[1], program) if match else None
    return message if sentence is None else f"unknown {match[0].split()[1]} {match[1]}; {sentence}"


def _keys(content: Any, prefix: str = "") -> list[str]:
    """Return the names of all settings in nested ``content``, of groups and of what is in them: "data", "data.rect"."""
    if not isinstance(content, Mapping):
        return []
    names = [(f"{prefix}{key}", value) for key, value in content.items()]
    return [name for key, value in names for name in (key, *_keys(value, f"{key}."))]
