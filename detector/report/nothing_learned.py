"""Networks that have learned nothing yet: how to know them, and what to do.

The detections of such a network hardly depend on the image, or its AP is not above that of a constant box. Advice from its
errors would mislead: the annotations are not at fault.
"""

import numpy as np
from pycocotools.coco import COCO

from detector.report.analysis import Analysis
from detector.report.matching import Matching, box_ious
from detector.report.run_folder import RunFolder, series
from detector.text import plural, score_text

SAME_BOXES = 0.8  # overlap of one image's best detection with those of another image
TOP = 10  # detections of an image that are compared
LOW_SCORE = 0.05  # an untrained network has scores of 0.0001 to 0.01
HIGH_SCORE = 0.3  # a network with such scores has learned something, right or wrong
GOOD_AP50 = 0.5  # where all objects lie at one place, the same boxes on every image can be right
MARGIN = 0.01  # of AP above the constant box, or a tenth of its AP: less may be chance


def nothing_learned(analysis: Analysis) -> str | None:
    """Return the evidence that the network has learned nothing yet, as a clause; None if it has learned something.

    None also without objects, where nothing can be known.
    """
    matching, ap50 = analysis.matching, analysis.result.metrics["AP50"]
    if not matching.num_objects:
        return None
    if not len(matching.scores):
        return "it gives no detection at all"
    best_score, above = float(matching.scores.max()), above_constant_box(analysis)
    same = same_on_every_image(analysis.coco, matching) >= SAME_BOXES
    blind = same and (ap50 < GOOD_AP50 or best_score < LOW_SCORE)
    if not blind and (above or best_score >= HIGH_SCORE):
        return None
    clauses = ["it finds nearly the same boxes on every image"] if same else []
    clauses += [f"its best score is {score_text(best_score)}"] if best_score < HIGH_SCORE else []
    clauses += [] if above else [f"its {compare_with_constant_box(analysis)}"]
    return ", and ".join(clauses)


def above_constant_box(analysis: Analysis) -> bool:
    """Return True if AP or AP50 is above that of a constant box by more than chance; without one, above 0."""
    for name in ("AP", "AP50"):
        floor = 0.0 if analysis.floor is None else max(analysis.floor.metrics[name], 0.0)
        if analysis.result.metrics[name] > floor + max(MARGIN, floor / 10):
            return True
    return False


def compare_with_constant_box(analysis: Analysis) -> str:
    """Return the AP50 of network and constant box in words; only where it is not above that of the constant box."""
    ap50 = max(analysis.result.metrics["AP50"], 0.0)
    if analysis.floor is None:
        return f"AP50 is {ap50:.3f}"
    return f"AP50 of {ap50:.3f} is not above that of a constant box, {analysis.floor.metrics['AP50']:.3f}"


def same_on_every_image(coco: COCO, matching: Matching) -> float:
    """Return how alike the detections of different images are, in 0..1; 0 for fewer than two images with detections.

    An image's best detection is compared with the TOP best detections of the next image: the highest IoU counts. This is the
    median over the images, once with boxes as shares of the image and once as places in a square network input; the higher
    of the two counts.
    """
    images = [(image, rows) for image, rows in _best_rows(matching) if _size(coco, image)]
    if len(images) < 2:
        return 0.0
    numbers = []
    for square in (False, True):
        boxes = [_relative(matching.det_boxes[rows], _size(coco, image), square) for image, rows in images]
        overlaps = [box_ious(one[:1], other).max() for one, other in zip(boxes, boxes[1:] + boxes[:1])]
        numbers.append(float(np.median(overlaps)))
    return max(numbers)


def _best_rows(matching: Matching) -> list[tuple[int, np.ndarray]]:
    """Return each image that has detections and the rows of its TOP best ones, the best first."""
    order = np.lexsort((-matching.scores, matching.det_images))
    images, starts = np.unique(matching.det_images[order], return_index=True)
    return [(int(image), rows[:TOP]) for image, rows in zip(images, np.split(order, starts[1:]))]


def _size(coco: COCO, image: int) -> tuple[int, int] | None:
    """Return width and height of an image, None if they are not known."""
    width, height = (coco.imgs[image].get(side) for side in ("width", "height"))
    return (width, height) if width and height else None


def _relative(boxes: np.ndarray, size: tuple[int, int], square: bool) -> np.ndarray:
    """Return ``boxes`` (N, 4) as shares of the image, or in a ``square`` around it with sides of 1."""
    sides = np.array([*size, *size], dtype=float)
    return (boxes - sides / 2) / sides.max() if square else boxes / sides


def how_to_learn(run: RunFolder) -> list[str]:
    """Return what to do so that the network learns, with the settings of the run."""
    model, trainer = run.config.get("model") or {}, run.config.get("trainer") or {}
    sentences = [f"Train longer{_so_far(run)}: a higher --trainer.max_epochs{_planned(trainer)}."]
    nominal_batch = model.get("nominal_batch", 64)
    if isinstance(nominal_batch, int) and nominal_batch > 16:
        sentences.append(
            f"Make more optimizer steps per epoch: --model.nominal_batch 16 (now {nominal_batch} images a step); small sets "
            f"need it."
        )
    if not model.get("weights"):
        sentences.append("Start from trained weights, which need far fewer steps: --model.weights (docs/finetune.md).")
    lr = f" (now {model['lr']:g})" if isinstance(model.get("lr"), float) else ""
    sentences.append(f"If the training loss does not fall, change the learning rate: --model.lr{lr}.")
    sentences.append("If all this is done already, look at what the network sees: python -m data show.")
    return sentences


def _so_far(run: RunFolder) -> str:
    """Return how long the run has trained, in brackets."""
    _, steps = series(run.epochs, "step")
    if not steps:
        return ""
    return f" (so far {plural(int(max(steps)) + 1, 'optimizer step')} in {plural(len(run.epochs), 'epoch')})"


def _planned(trainer: dict) -> str:
    return f" than {trainer['max_epochs']}" if isinstance(trainer.get("max_epochs"), int) else ""
