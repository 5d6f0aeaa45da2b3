"""The recipe of a training by its images and its start: what ``auto`` means in a configuration of train.py."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from detector.arguments import as_whole_number
from detector.text import plural, unknown_name
from detector.training.optimizer import OptimizerName
from detector.training.recipe_table import FEWEST_IMAGES, MEASURED, MOST_EPOCHS, PUBLISHED, RULES, SMALL_SET, Rule, Start
from detector.training.setting_checks import UPPER_LIMITS, check_optimization
from detector.training.steps import accumulated_batches, batches_of_epoch, epochs_of_steps, steps_of_run

EPOCHS_OF_TRAINER = 1000  # with max_epochs null
FROM = {"scratch": "from scratch", "backbone": "from a trained backbone", "detector": "from the weights of a detector"}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training; ``reasons`` has a sentence for each of the other fields, by name."""

    optimizer: OptimizerName
    lr: float
    weight_decay: float
    nominal_batch: int  # images of an optimizer step
    warmup_epochs: float
    warmup_bias_lr: float
    epochs: int
    mosaic: float
    close_mosaic: int
    ema_decay: float
    ema_tau: float
    reasons: Mapping[str, str]

    @property
    def model_settings(self) -> dict[str, Any]:
        """Arguments of ``DetectorModule``."""
        names = ("optimizer", "lr", "weight_decay", "nominal_batch", "warmup_epochs", "warmup_bias_lr")
        return {name: getattr(self, name) for name in names}

    @property
    def augment_settings(self) -> dict[str, Any]:
        """Fields of ``data.Augmentation``."""
        return {"mosaic": self.mosaic, "close_mosaic": self.close_mosaic}

    @property
    def ema_settings(self) -> dict[str, float]:
        """Arguments of ``RampedEMA``."""
        return {"decay": self.ema_decay, "tau": self.ema_tau}


RECIPE_FIELDS = tuple(field.name for field in fields(Recipe) if field.name != "reasons")


def recipe_for(
    num_images: int,
    batch_size: int = 16,
    num_devices: int = 1,
    start: Start = "scratch",
    given: Mapping[str, Any] | None = None,
    accumulated: int = 1,
    epoch_batches: int | None = None,
    max_steps: int = -1,
) -> Recipe:
    """Return the recipe for a set of ``num_images`` training images.

    Sets of more than ``SMALL_SET`` images get the published schedule of long runs. ``batch_size`` is that of each of
    ``num_devices``. ``given`` are fields of the recipe that the user has chosen: they are kept, and others follow from them,
    as the rate from the optimizer. ``accumulated`` is the Trainer's own ``accumulate_grad_batches``: above 1 it decides how
    many images make a step. ``epoch_batches`` are the batches of an epoch on each device, if they are not those of
    ``num_images``: with repeated images, or a Trainer's ``limit_train_batches`` (see ``batches_of_epoch``). ``max_steps`` is
    that of the Trainer: there are no more epochs than it has steps for, so mosaic closes and the rate falls before it ends.
    Raises ValueError for wrong numbers, another start, and unknown names in ``given``.
    """
    for name, number in (("num_images", num_images), ("batch_size", batch_size), ("num_devices", num_devices)):
        as_whole_number(number, name)
    _check_given(given or {})
    images_per_batch = batch_size * num_devices
    if epoch_batches is None:
        epoch_batches = batches_of_epoch(num_images, images_per_batch)
    if start not in RULES:
        raise ValueError(unknown_name("start", start, get_args(Start)))
    rule = rule_for(num_images, start)
    choices = _Choices(given or {}, num_images, rule)
    choices.optimizer_and_rate()
    batches_of_step = choices.step(images_per_batch, accumulated)
    choices.epochs_and_mosaic(max_steps, epochs_of_steps(max_steps, epoch_batches, batches_of_step))
    choices.average(choices.num_steps(epoch_batches, batches_of_step, max_steps))
    return Recipe(**choices.values, reasons=choices.reasons)


def _check_given(given: Mapping[str, Any]) -> None:
    """Raise ValueError for unknown names and wrong values. None is a default of DetectorModule or of the Trainer."""
    if unknown := [name for name in given if name not in RECIPE_FIELDS]:
        raise ValueError(unknown_name("field of a recipe:", unknown[0], RECIPE_FIELDS))
    check_optimization(given, UPPER_LIMITS | {"mosaic": 1.0, "ema_decay": 1.0, "ema_tau": math.inf})
    for name, least in (("epochs", -1), ("close_mosaic", 0)):
        if given.get(name) is not None:
            as_whole_number(given[name], name, least)


def rule_for(num_images: int, start: Start) -> Rule:
    """Return the row of the table for a set of ``num_images`` training images."""
    return PUBLISHED if num_images > SMALL_SET else RULES[start]


class _Choices:
    """The values of a recipe, chosen one after the other: later ones may depend on earlier ones."""

    def __init__(self, given: Mapping[str, Any], num_images: int, rule: Rule) -> None:
        self.given, self.num_images, self.rule = given, num_images, rule
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def choose(self, name: str, value: Any, reason: str | None = None) -> Any:
        """Set a field and its reason, unless the user has given it; return the value that holds."""
        is_given = name in self.given
        self.values[name] = self.given[name] if is_given else value
        self.reasons[name] = "given" if is_given else reason or self.rule.reasons[name]
        return self.values[name]

    def optimizer_and_rate(self) -> None:
        rule, reason = self.rule, None
        lr, usual = self.given.get("lr"), rule.lr[rule.optimizer]
        if lr not in (None, usual):  # perhaps meant for another optimizer
            reason = f"{rule.reasons['optimizer']}; its rate would be {usual:g}, and {lr:g} is given: give both"
        optimizer = self.choose("optimizer", rule.optimizer, reason)
        by_optimizer = None if optimizer == rule.optimizer else f"follows from {optimizer}"
        for name in ("lr", "weight_decay", "warmup_bias_lr"):
            self.choose(name, getattr(rule, name)[optimizer], by_optimizer)
        self.choose("warmup_epochs", rule.warmup_epochs)

    def step(self, images_per_batch: int, accumulated: int) -> int:
        """Choose the images of a step, and return how many batches make one.

        ``images_per_batch`` are those of one batch on all devices together.
        """
        nominal, reason = self.rule.nominal_batch, None
        if accumulated > 1:
            nominal = images_per_batch * accumulated
            reason = f"trainer.accumulate_grad_batches {accumulated} x {plural(images_per_batch, 'image')} of a batch"
        elif self.rule is not PUBLISHED and images_per_batch > nominal:
            nominal = images_per_batch
            reason = "the images of a batch on all devices; a lower data.batch_size gives more steps"
        nominal = self.choose("nominal_batch", nominal, reason)
        return accumulated if accumulated > 1 else accumulated_batches(nominal, images_per_batch)

    def epochs_and_mosaic(self, max_steps: int, most_epochs: int | None) -> None:
        """Choose the epochs; smaller sets than ``FEWEST_IMAGES`` have more. Mosaic closes in at most half of them.

        ``max_steps`` optimizer steps are made in ``most_epochs``; None without such a limit.
        """
        rule, reason = self.rule, None
        epochs = min(math.ceil(rule.epochs * FEWEST_IMAGES / self.num_images), MOST_EPOCHS)
        if epochs > rule.epochs:
            reason = f"{plural(self.num_images, 'image')}: more than the {rule.epochs} of {FEWEST_IMAGES} images or more"
        epochs = max(epochs, rule.epochs)
        if most_epochs is not None and most_epochs < epochs:
            epochs, reason = most_epochs, f"enough for trainer.max_steps {max_steps}"
        epochs = self.choose("epochs", epochs, reason)
        self.choose("mosaic", rule.mosaic)
        half, reason = rule.close_mosaic, None
        if epochs is not None and epochs >= 0:
            half = epochs // 2
            reason = f"at most half of {plural(epochs, 'epoch')}" if half < rule.close_mosaic else None
        elif max_steps < 0 and epochs is not None:
            reason = "a training without an end has no last epochs: mosaic stays"
        self.choose("close_mosaic", min(rule.close_mosaic, half), reason)

    def num_steps(self, epoch_batches: int, batches_of_step: int, max_steps: int) -> int:
        """Return the optimizer steps of the run; of an endless one those in the epochs of the rule.

        Without max_epochs and max_steps, a Trainer makes ``EPOCHS_OF_TRAINER``.
        """
        epochs = self.values["epochs"]
        if epochs is None:
            epochs = EPOCHS_OF_TRAINER if max_steps < 0 else -1
        if epochs < 0 and max_steps < 0:
            epochs = self.rule.epochs
        return steps_of_run(epoch_batches, batches_of_step, epochs, max_steps)

    def average(self, num_steps: int) -> None:
        """Choose the length of the averaged weights in a run of ``num_steps`` optimizer steps."""
        rule = self.rule
        if rule.ema_share is None:
            self.choose("ema_decay", rule.ema_decay)
            self.choose("ema_tau", rule.ema_tau)
            return
        length = max(rule.ema_share * num_steps, 2.0)
        reason = f"averages about {length:.0f} steps, {rule.ema_share:.0%} of {num_steps}"
        self.choose("ema_decay", round(1 - 1 / length, 6), reason)
        self.choose("ema_tau", round(length, 1), reason)


def recipe_table(recipe: Recipe, keys: Mapping[str, str], num_images: int, start: Start) -> str:
    """Return the chosen values with their reasons, one a line, for the log. ``keys`` are the names of settings by field."""
    values = {key: f"{getattr(recipe, name)}" for name, key in keys.items()}
    widths = max(map(len, values)), max(map(len, values.values()))
    rule = rule_for(num_images, start)
    is_rule = (recipe.optimizer, recipe.lr) == (rule.optimizer, rule.lr[rule.optimizer])
    others = "optimizer and rate are not those that were measured"
    evidence = rule.evidence if is_rule or rule.evidence != MEASURED else others
    lines = [f"recipe for {plural(num_images, 'training image')}, {FROM[start]}: {rule.origin} ({evidence})"]
    for name, key in keys.items():
        lines.append(f"    {key:<{widths[0]}}  {values[key]:<{widths[1]}}  {recipe.reasons[name]}")
    return "\n".join(lines)
