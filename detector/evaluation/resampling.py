"""AP of resampled images: detections and objects are matched once, and AP follows for any weights of the images.

For intervals of AP and of differences of AP: the bootstrap draws images with replacement, and an image that was drawn twice
counts as two images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from detector.evaluation.backends import pycocotools_eval
from detector.evaluation.coco_files import GroundTruth
from detector.evaluation.pairs import ALL_SIZES
from detector.evaluation.silence import silent

NUM_DRAWS = 200
LEVEL = 95  # percent of the draws that lie in an interval
LIMIT = 100  # detections for each image and class, as in AP
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class in N images, best first, and what they match at T IoU thresholds."""

    images: np.ndarray  # (D,) index of the image
    matched: np.ndarray  # (T, D) bool: on an object
    ignored: np.ndarray  # (T, D) bool: neither right nor wrong, as on a crowd
    num_objects: np.ndarray  # (N,) of each image


@dataclass(frozen=True)
class Matches:
    """The matches of an evaluation of N images by pycocotools, in the order of their sorted ids."""

    classes: list[ClassMatches]

    def restricted(self, images: np.ndarray) -> "Matches":
        """Return the matches in some of the N images only; ``images`` is a mask (N,)."""
        return Matches([_restricted(part, images) for part in self.classes])

    def ap(self, counts: np.ndarray) -> np.ndarray:
        """Return the AP (R,) of R samples of the images: image n occurs ``counts[r, n]`` times in sample r.

        ``counts`` are (R, N) int64. It is the AP of pycocotools for these images and copies of them, up to the order of
        equal scores. NaN if a sample has no object.
        """
        aps = np.array([_class_ap(part, counts) for part in self.classes]).reshape(-1, len(counts))
        has_objects = np.isfinite(aps)
        sums, numbers = np.where(has_objects, aps, 0).sum(axis=0), has_objects.sum(axis=0)
        return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)


def match_images(coco: GroundTruth, detections: np.ndarray, image_ids: Sequence[int]) -> Matches:
    """Match ``detections`` (D, 7), see ``detection_rows``, with the objects of ``image_ids``, by pycocotools."""
    with silent():
        coco_eval = pycocotools_eval(coco, detections)
        coco_eval.params.imgIds, coco_eval.params.maxDets = list(image_ids), [LIMIT]
        coco_eval.params.areaRng, coco_eval.params.areaRngLbl = [list(ALL_SIZES)], ["all"]
        coco_eval.evaluate()
    num_images = len(coco_eval.params.imgIds)
    by_class = [coco_eval.evalImgs[k : k + num_images] for k in range(0, len(coco_eval.evalImgs), num_images)]
    return Matches([_class_matches(results, len(coco_eval.params.iouThrs)) for results in by_class])


def bootstrap_counts(strata: np.ndarray, num_draws: int = NUM_DRAWS, seed: int = 0) -> np.ndarray:
    """Return how often each of N images occurs in each of R bootstrap samples, (R, N) int64.

    A sample has as many images of each stratum as there are; ``strata`` (N,) are numbers, such as those of the sources.
    """
    rng, counts = np.random.default_rng(seed), np.zeros((num_draws, len(strata)), np.int64)
    for stratum in np.unique(strata):
        images = np.flatnonzero(strata == stratum)
        counts[:, images] = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), num_draws)
    return counts


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of the interval that holds 95 % of ``values``, without those that are NaN."""
    low, high = np.nanpercentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def _class_matches(results: list[dict | None], num_thresholds: int) -> ClassMatches:
    """Return the matches of one class from pycocotools' ``results`` of each image, in its order of equal scores."""
    images, scores = [np.empty(0, np.int64)], [np.empty(0)]
    matched, ignored = ([np.empty((num_thresholds, 0), bool)] for _ in range(2))
    num_objects = np.zeros(len(results), np.int64)
    for n, result in enumerate(results):
        if result is not None:
            images.append(np.full(len(result["dtScores"]), n))
            scores.append(np.array(result["dtScores"], np.float64))
            matched.append(result["dtMatches"] > 0)
            ignored.append(result["dtIgnore"].astype(bool))
            num_objects[n] = np.count_nonzero(~result["gtIgnore"].astype(bool))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    rows = np.concatenate(matched, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
    return ClassMatches(np.concatenate(images)[order], *rows, num_objects)


def _restricted(part: ClassMatches, images: np.ndarray) -> ClassMatches:
    rows = images[part.images]
    arrays = part.images[rows], part.matched[:, rows], part.ignored[:, rows]
    return replace(part, images=arrays[0], matched=arrays[1], ignored=arrays[2], num_objects=part.num_objects * images)


def _class_ap(part: ClassMatches, counts: np.ndarray) -> np.ndarray:
    """Return the AP (R,) of one class; NaN where it has no object."""
    num_objects, weights = counts @ part.num_objects, counts[:, part.images]  # (R,), (R, D)
    needed = np.array([_needed(number) for number in num_objects.tolist()])
    counted, sums = weights.cumsum(axis=1), np.zeros(len(counts))
    for matched, ignored in zip(part.matched, part.ignored):
        right = np.flatnonzero(matched & ~ignored)  # precision has its peaks at these
        so_far = (weights * ~ignored).cumsum(axis=1) if ignored.any() else counted
        sums += _interpolated_precision(weights[:, right].cumsum(axis=1), so_far[:, right], needed)
    return np.where(num_objects > 0, sums / len(part.matched), np.nan)


def _interpolated_precision(right: np.ndarray, counted: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Return the mean over 101 recalls of the highest precision at that recall or above, (R,).

    ``right`` and ``counted`` (R, K) are how many detections are right, and how many there are, up to each right one;
    ``needed`` (R, 101) how many must be right.
    """
    num_samples, length = right.shape
    if not length:
        return np.zeros(num_samples)
    precision = right / (counted + np.spacing(1))  # as pycocotools
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    offsets = (np.arange(num_samples) * (max(int(right.max()), int(needed.max())) + 1))[:, None]  # all rows in one search
    index = np.searchsorted((right + offsets).ravel(), (needed + offsets).ravel()).reshape(needed.shape)
    index -= (np.arange(num_samples) * length)[:, None]
    values = np.take_along_axis(highest, np.minimum(index, length - 1), axis=1)
    return np.where(index < length, values, 0).mean(axis=1)


@lru_cache(maxsize=4096)
def _needed(num_objects: int) -> np.ndarray:
    """Return how many of ``num_objects`` must be found for each of the 101 recalls, (101,); compared as pycocotools does."""
    return np.searchsorted(np.arange(num_objects + 1) / max(num_objects, 1), RECALLS).astype(np.int64)
