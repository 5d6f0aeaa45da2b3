"""Networks that have learned nothing yet: how to know them, and what to do.

The detections of such a network hardly depend on the image, or its AP is not above that of a constant box. Advice from its
errors would mislead: the annotations are not at fault.
"""

import numpy as np
from pycocotools.coco import COCO

from detector.report.analysis import Analysis
from detector.report.matching import box_ious
from detector.report.run_folder import RunFolder
from detector.report.training import num_steps, planned, so_far
from detector.text import score_text

SAME_BOXES = 0.8  # overlap of one image's best detection with those of another image
TOP = 10  # detections of an image that are compared
LOW_SCORE = 0.05  # an untrained network has scores of 0.0001 to 0.01
HIGH_SCORE = 0.3  # a network with such scores has learned something, right or wrong
GOOD_AP50 = 0.5  # boxes that are the same on every image, and this good, are right for their data
MANY_STEPS = 5000  # of the optimizer: a network that has learned nothing by then will hardly do so with more
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
    same = likeness(analysis.coco, matching.det_images, matching.det_boxes, matching.scores) >= SAME_BOXES
    blind = same and (best_score < LOW_SCORE or (ap50 < GOOD_AP50 and not _same_objects(analysis)))
    if not blind and (above or best_score >= HIGH_SCORE):
        return None
    clauses = ["it finds nearly the same boxes on every image"] if same else []
    clauses += [f"its best score is {score_text(best_score)}"] if best_score < HIGH_SCORE else []
    clauses += [] if above else [f"its {compare_with_constant_box(analysis)}"]
    return " and ".join(filter(None, [", ".join(clauses[:-1]), *clauses[-1:]]))


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


def likeness(coco: COCO, images: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> float:
    """Return how alike the boxes of different images are, in 0..1; 0 for fewer than two images with boxes.

    An image's best box is compared with the TOP best boxes of the next image: the highest IoU counts. Returned is the median
    over the images, with boxes as shares of the image or as places in a square network input, whichever is higher.

    Args:
        images: (N,) image ids.
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the image.
        scores: (N,).
    """
    order = np.lexsort((-scores, images))
    ids, starts = np.unique(images[order], return_index=True)
    rows_by_image = dict(zip(ids.tolist(), np.split(order, starts[1:])))
    known = [(rows[:TOP], size) for image, rows in rows_by_image.items() if (size := _size(coco, image))]
    if len(known) < 2:
        return 0.0
    numbers = []
    for square in (False, True):
        relative = [_relative(boxes[rows], size, square) for rows, size in known]
        overlaps = [box_ious(one[:1], other).max() for one, other in zip(relative, relative[1:] + relative[:1])]
        numbers.append(float(np.median(overlaps)))
    return max(numbers)


def _same_objects(analysis: Analysis) -> bool:
    """Return True if the objects lie at the same places on every image, as before a camera that does not move."""
    matching, real = analysis.matching, ~analysis.matching.crowds
    images, boxes = matching.obj_images[real], matching.obj_boxes[real]
    return likeness(analysis.coco, images, boxes, matching.areas[real]) >= SAME_BOXES


def _size(coco: COCO, image: int) -> tuple[int, int] | None:
    """Return width and height of an image, None if they are not known."""
    width, height = (coco.imgs[image].get(side) for side in ("width", "height"))
    return (width, height) if width and height else None


def _relative(boxes: np.ndarray, size: tuple[int, int], square: bool) -> np.ndarray:
    """Return ``boxes`` (N, 4) as shares of the image, or in a ``square`` around it with sides of 1."""
    sides = np.array([*size, *size], dtype=float)
    return (boxes - sides / 2) / sides.max() if square else boxes / sides


def how_to_learn(run: RunFolder) -> list[str]:
    """Return what to do so that the network learns, with the settings of the run, the most promising first."""
    model = run.config.get("model") or {}
    steps = num_steps(run)
    longer = [f"Train longer{so_far(run)}: a higher --trainer.max_epochs{planned(run)}."]
    nominal_batch = model.get("nominal_batch", 64)
    if isinstance(nominal_batch, int) and nominal_batch > 16:
        now = f"now {nominal_batch} images a step"
        longer += [f"Make more optimizer steps per epoch: --model.nominal_batch 16 ({now}); small sets need it."]
    if not model.get("weights"):
        longer += ["Start from the weights of a trained detector: --model.weights (docs/finetune.md)."]
    if model.get("backbone_weights") in (None, "none") and not model.get("weights"):
        longer += ["Start from an ImageNet backbone: --config configs/backbone.yaml (docs/backbones.md)."]
    lr = f" (now {model['lr']:g})" if isinstance(model.get("lr"), float) else ""
    settings = [f"If the training loss does not fall, change the learning rate: --model.lr{lr}."]
    if steps >= MANY_STEPS:
        done = f"{steps} optimizer steps are enough to learn something"
        return [f"{done}: look at what the network sees, with python -m data show.", *settings, *longer]
    return [*longer, *settings, "If all this is done already, look at what the network sees: python -m data show."]
