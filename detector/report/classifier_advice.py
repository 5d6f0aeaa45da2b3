"""Advice about a pre-training in sentences, each with the numbers behind it."""

import math
import shlex
from pathlib import Path
from typing import Any

from detector.report.run_folder import RunFolder, series
from detector.report.training import num_steps, planned, so_far, still_rising, unfinished
from detector.runs.folder import BEST_CHECKPOINT
from detector.text import plural

MANY_STEPS = 2000  # of the optimizer: a network that has learned nothing by then will hardly do so with more
FEW_IMAGES = 10  # the top-1 of a class with fewer is a matter of luck
CLEARLY = 0.005  # of top-1: a difference between epochs that is worth a word
MUCH = 0.2  # share of a class's images that are taken for one other class


def advice(run: RunFolder) -> list[str]:
    """Return sentences, the most useful first."""
    results = run.classification
    if not results:
        return unfinished(run)
    if evidence := nothing_learned(results):
        start = f"The network has learned nothing yet: {evidence}."
        return [f"{start} Its mistakes say nothing about the labels.", *how_to_learn(run), *unfinished(run)]
    sentences = [*_best_epoch(run), *_largest_confusion(results), *_weakest_class(results)]
    return [*sentences, *unfinished(run), *still_rising(run, "val/top1", "Top-1")]


def learning_warning(run: RunFolder) -> list[str]:
    """Return that the network has learned nothing yet, to be said before anything else; or nothing."""
    return advice(run)[:1] if run.classification and nothing_learned(run.classification) else []


def largest_class_share(results: dict[str, Any]) -> float:
    """Return the top-1 of a network that names the largest class for every image."""
    return max(row["images"] for row in results["classes"]) / max(results["images"], 1)


def nothing_learned(results: dict[str, Any]) -> str | None:
    """Return the evidence that the network has learned nothing yet, as a clause; None if it has, or if nobody can know.

    Its top-1 must exceed the share of the largest class by two standard errors.
    """
    floor, number = largest_class_share(results), results["images"]
    if len(results["classes"]) < 2 or floor == 1:
        return None
    margin = 2 * math.sqrt(floor * (1 - floor) / number)
    if results["top1"] > floor + margin:
        return None
    return (
        f"its top-1 of {results['top1']:.3f} on {plural(number, 'image')} is not clearly above the share of the largest "
        f"class, {floor:.3f}"
    )


def how_to_learn(run: RunFolder) -> list[str]:
    """Return what to do so that the network learns, with the settings of the run, the most promising first."""
    model, data, trainer = (run.config.get(section) or {} for section in ("model", "data", "trainer"))
    epochs, warmup, steps = trainer.get("max_epochs"), model.get("warmup_epochs"), num_steps(run)
    sentences = []
    if isinstance(epochs, int) and isinstance(warmup, int | float) and 2 * warmup >= epochs > 0:
        sentences.append(f"Half of the training is warm-up: a shorter one is --model.warmup_epochs {epochs / 10:g}.")
    longer = [f"Train longer{so_far(run)}: a higher --trainer.max_epochs{planned(run)}."]
    if isinstance(size := data.get("batch_size"), int) and size > 16:
        longer.append(f"Make more steps per epoch: a smaller --data.batch_size (now {size}). The learning rate follows it.")
    if not model.get("weights"):
        longer.append("Start from weights: --model.weights, a file or pretrained (docs/pretraining.md).")
    lighter = "With few images, augment less: --data.augment.auto_augment null --data.augment.erasing 0."
    rate = f" (now {model['lr']:g})" if isinstance(model.get("lr"), float) else ""
    settings = [lighter, f"If the training loss does not fall, change the learning rate: --model.lr{rate}."]
    if steps >= MANY_STEPS:
        look = "look at the images of each class: are they in the right folders?"
        return [*sentences, f"{steps} optimizer steps are enough to learn something: {look}", *settings, *longer]
    return [*sentences, *longer, *settings]


def next_commands(run: RunFolder) -> list[str]:
    """Return the commands that start a detector from the run, and write its weights; none if it has learned nothing."""
    if run.checkpoint is None or (run.classification and nothing_learned(run.classification)):
        return []
    weights = ["python", "-m", "detector", "weights", str(run.checkpoint), str(run.folder / "weights.safetensors")]
    return [start_command(run.checkpoint), shlex.join(weights)]


def start_command(checkpoint: Path) -> str:
    """Return the command that starts a detector from ``checkpoint``, which says what its backbone is."""
    words = ["python", "train.py", "--config", "configs/data/mine.yaml", "--model.backbone_weights", str(checkpoint)]
    return shlex.join(words)


def _best_epoch(run: RunFolder) -> list[str]:
    epochs, values = series(run.epochs, "val/top1")
    if not values or max(values) - values[-1] <= CLEARLY:
        return []
    best = values.index(max(values))
    return [
        f"These numbers are of epoch {epochs[-1] + 1}; {BEST_CHECKPOINT} is of epoch {epochs[best] + 1}, which was better "
        f"(top-1 {values[best]:.3f})."
    ]


def _largest_confusion(results: dict[str, Any]) -> list[str]:
    if not results["confusions"]:
        return []
    row = results["confusions"][0]
    if row["share"] < MUCH or row["images"] < 2:
        return []
    return [
        f"{row['images']} images of {row['class']} ({row['share']:.0%}) are taken for {row['predicted']}: look at some "
        "below. If people mix them up, too, check the labels, or make one class of both."
    ]


def _weakest_class(results: dict[str, Any]) -> list[str]:
    known = [row for row in results["classes"] if row["images"]]
    if len(known) < 2 or results["top1"] == 1:
        return []
    row = min(known, key=lambda row: row["top1"])
    few = ", too few to be sure" if row["images"] < FEW_IMAGES else ""
    return [f"The weakest class is {row['name']}: top-1 {row['top1']:.3f} ({plural(row['images'], 'image')}{few})."]
