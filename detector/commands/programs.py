"""The programs that train, and the settings that only one of them has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Program:
    """A program, what it does, and the settings that the other one does not have."""

    name: str
    purpose: str
    settings: tuple[str, ...]


TRAIN = Program(
    "train.py",
    "trains detectors, on images with boxes",
    (
        *("data.augment.close_mosaic", "data.augment.degrees", "data.augment.fliplr", "data.augment.hsv"),
        *("data.augment.mosaic", "data.augment.multi_scale", "data.augment.pool", "data.augment.shear"),
        *("data.augment.translate", "data.cache", "data.rect", "data.repeat_threshold", "data.single_cls"),
        *("data.test_annotations", "data.test_images", "data.transforms", "data.val_split", "evaluation.backend"),
        *("evaluation.branch", "evaluation.flip_test", "evaluation.ground_truth", "evaluation.iou_threshold"),
        *("evaluation.max_detections", "evaluation.per_class", "evaluation.predictions", "evaluation.score_threshold"),
        *("model.backbone_lr_ratio", "model.backbone_weights", "model.box_gain", "model.class_gain", "model.class_lr_ratio"),
        *("model.class_weights", "model.l1_gain", "model.lr_decay", "model.lr_ratios", "model.new_parts"),
        *("model.warmup_bias_lr", "model.warmup_momentum", "sheet"),
    ),
)
PRETRAIN = Program(
    "pretrain.py",
    "pre-trains classifiers, on images in a folder for each class",
    (
        *("data.augment.auto_augment", "data.augment.color_jitter", "data.augment.cutmix", "data.augment.erasing"),
        *("data.augment.flip", "data.augment.interpolation", "data.augment.mix_prob", "data.augment.ratio"),
        *("data.augment.switch_prob", "data.augment.vertical_flip", "data.check", "data.crop_pct", "data.license"),
        *("data.provenance", "data.train", "data.val", "data.val_share", "evaluation.num_confusions"),
        *("evaluation.num_mistakes", "evaluation.write", "model.drop_path", "model.dropout", "model.label_smoothing"),
        *("model.layer_decay",),
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


def is_of_pretraining(content: Any) -> bool:
    """Return True for the content of a configuration that has settings of pretrain.py alone."""
    return any(key in PRETRAIN.settings for key in _keys(content))


def explain_unknown(message: str, program: Program) -> str:
    """Return the ``message`` about an unknown option or key, with a sentence if it belongs to another program."""
    match = re.match(r"unknown (?:option|key) (\S+?)(?:;|$)", message, re.M)
    if match is None or (sentence := setting_of_other_program(match[1], program)) is None:
        return message
    return f"unknown {match[0].split()[1]} {match[1]}; {sentence}"


def _keys(content: Any, prefix: str = "") -> list[str]:
    """Return the names of all settings in nested ``content``, of groups and of what is in them: "data", "data.rect"."""
    if not isinstance(content, Mapping):
        return []
    names = [(f"{prefix}{key}", value) for key, value in content.items()]
    return [name for key, value in names for name in (key, *_keys(value, f"{key}."))]
