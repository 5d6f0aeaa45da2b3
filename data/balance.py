"""Class balance: how often the images of rare classes are repeated in an epoch (LVIS, arXiv:1908.03195)."""

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from data.annotations import Annotations
from detector.arguments import as_number
from detector.text import plural

MAX_CLASSES = 10  # in a message


def repeat_factors(train: Annotations, threshold: float) -> np.ndarray:
    """Return how often each image is repeated, (I,) float64, 1 or more, and log the classes that this is for.

    A class in the share f of the images has the factor max(1, sqrt(threshold / f)). The factor of an image is the largest of
    its classes; that of an image without objects is 1. Crowds do not count. ``threshold`` is a share above 0, up to 1.
    """
    if threshold == 0:
        raise ValueError("data.repeat_threshold is 0; leave it out, or set it to null, to repeat no image")
    as_number(threshold, "data.repeat_threshold", 1e-6)
    image_indices, counted = train.image_indices(), ~train.crowds
    has_class = np.zeros((len(train), len(train.class_names)), bool)
    has_class[image_indices[counted], train.labels[counted]] = True
    shares = has_class.mean(axis=0)
    of_classes = np.ones(len(shares))
    of_classes[shares > 0] = np.sqrt(threshold / shares[shares > 0]).clip(min=1)
    factors = np.where(has_class, of_classes, 1.0).max(axis=1)
    _log(train, threshold, has_class.sum(axis=0), of_classes, factors)
    if absent := [name for name, share in zip(train.class_names, shares) if not share]:
        names = ", ".join(absent[:MAX_CLASSES]) + (", ..." if len(absent) > MAX_CLASSES else "")
        subject = plural(len(absent), "class is", "classes are")
        rank_zero_warn(f"data.repeat_threshold: {subject} in no training image, so nothing can be repeated for it: {names}")
    return factors


def _log(train: Annotations, threshold: float, counts: np.ndarray, of_classes: np.ndarray, factors: np.ndarray) -> None:
    rare = [n for n in np.argsort(-of_classes, kind="stable").tolist() if of_classes[n] > 1]
    rows = [f"{train.class_names[n]} ({plural(int(counts[n]), 'image')}) x {of_classes[n]:.2f}" for n in rare[:MAX_CLASSES]]
    more = [f"{len(rare) - MAX_CLASSES} more"] if len(rare) > MAX_CLASSES else []
    epoch = f"an epoch has {plural(int(np.ceil(round(factors.sum(), 6))), 'sample')} of {plural(len(train), 'image')}"
    shown = f"repeated: {', '.join(rows + more)}" if rare else "every class is in more of the images: nothing is repeated"
    rank_zero_info(f"data.repeat_threshold {threshold:g}: {epoch}; {shown}")
