"""Results of a classifier: top-1, top-5, accuracy of each class, confusions, worst mistakes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from detector.text import plural

TOP = 5
MOST_EXAMPLES = 3  # images of a confusion that are named
MOST_LINES = 20  # classes in a table for the terminal


@dataclass(frozen=True)
class ClassPredictions:
    """The predictions for N images, as arrays (N,)."""

    indices: np.ndarray  # numbers of the images in their split
    labels: np.ndarray  # 0..C-1
    predicted: np.ndarray  # the class with the highest score
    scores: np.ndarray  # 0..1, of the predicted class
    label_scores: np.ndarray  # 0..1, of the true class
    ranks: np.ndarray  # number of classes before the true one: 0 if it is predicted. C if a score is not a number

    @classmethod
    def of_logits(cls, logits: Tensor, labels: Tensor, indices: Tensor) -> Self:
        """Return the predictions of ``logits`` (N, C), on any device, for images with ``labels`` (N,)."""
        logits = logits.detach()
        predicted, probabilities = logits.argmax(dim=1), logits.float().softmax(dim=1)
        scores, label_scores = (probabilities.gather(1, classes[:, None])[:, 0] for classes in (predicted, labels))
        values = (indices, labels, predicted, scores, label_scores, ranks(logits, labels))
        return cls(*(value.cpu().numpy() for value in values))

    @property
    def correct(self) -> np.ndarray:
        """True for each image whose true class is predicted, (N,)."""
        return self.ranks == 0

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the predictions of all ``parts`` in the order of ``indices``; of an image that comes twice, the first."""
        arrays = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        _, first = np.unique(arrays["indices"], return_index=True)
        return cls(**{name: array[first] for name, array in arrays.items()})

    def __len__(self) -> int:
        return len(self.indices)


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the true one of each image, (B,), for ``logits`` (B, C) and ``labels`` (B,).

    Of equal logits the first class comes first, as in ``argmax``. If a logit is not a number, the rank is C.
    """
    own = logits.gather(1, labels[:, None])
    numbers = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (numbers < labels[:, None]))
    return before.sum(dim=1).masked_fill(logits.isnan().any(dim=1), logits.shape[1])


def classification_results(
    predictions: ClassPredictions,
    class_names: Sequence[str],
    image_name: Callable[[int], str] = str,
    num_confusions: int = 50,
    num_mistakes: int = 24,
) -> dict[str, Any]:
    """Return the results of a classifier with C classes, for JSON.

    ``top1`` and ``top5`` are shares of all images, 0..1. ``top5`` counts the ``top5_of`` highest scores: fewer than five
    with fewer classes. ``classes`` are in the order of ``class_names``; ``top1`` of one without images is None.
    ``confusions`` are pairs of classes, the most frequent first. ``mistakes`` are single images, those with the highest
    wrong scores first. Images have the names that ``image_name`` gives to their numbers.
    """
    counts = np.bincount(predictions.labels, minlength=len(class_names))
    right = np.bincount(predictions.labels[predictions.correct], minlength=len(class_names))
    return {
        "images": len(predictions),
        "top1": float(predictions.correct.mean()),
        "top5": float((predictions.ranks < TOP).mean()),
        "top5_of": min(TOP, len(class_names)),
        "classes": [
            {"name": name, "images": int(count), "top1": int(hits) / int(count) if count else None}
            for name, count, hits in zip(class_names, counts, right, strict=True)
        ],
        "confusions": _confusions(predictions, class_names, image_name, num_confusions),
        "mistakes": [
            {
                "image": image_name(int(predictions.indices[n])),
                "class": class_names[predictions.labels[n]],
                "predicted": class_names[predictions.predicted[n]],
                "score": _finite(predictions.scores[n]),
                "class_score": _finite(predictions.label_scores[n]),
            }
            for n in _mistakes(predictions)[:num_mistakes].tolist()
        ],
    }


def _confusions(
    predictions: ClassPredictions, class_names: Sequence[str], image_name: Callable[[int], str], number: int
) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a class and a wrong predicted one, each with its first few images."""
    wrong = _mistakes(predictions)
    pairs = predictions.labels[wrong].astype(np.int64) * len(class_names) + predictions.predicted[wrong]
    kinds, counts = np.unique(pairs, return_counts=True)
    totals = np.bincount(predictions.labels, minlength=len(class_names))
    confusions = []
    for place in np.argsort(-counts, kind="stable")[:number].tolist():
        label, predicted = divmod(int(kinds[place]), len(class_names))
        examples = predictions.indices[wrong[pairs == kinds[place]][:MOST_EXAMPLES]]
        confusions.append(
            {
                "class": class_names[label],
                "predicted": class_names[predicted],
                "images": int(counts[place]),
                "share": int(counts[place]) / int(totals[label]),
                "examples": [image_name(index) for index in examples.tolist()],
            }
        )
    return confusions


def _mistakes(predictions: ClassPredictions) -> np.ndarray:
    """Return the places of the wrong predictions, those with the highest scores first."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-np.nan_to_num(predictions.scores[wrong]), kind="stable")]


def _finite(value: float) -> float | None:
    """Return a number for JSON, which has no NaN: weights that are not finite give such scores."""
    return float(value) if np.isfinite(value) else None


def totals(results: dict[str, Any]) -> dict[str, float]:
    """Return top-1 and top-5 by their names; with fewer than five classes top-4, ..., and with one class top-1 alone."""
    return {"top-1": results["top1"]} | {f"top-{results['top5_of']}": results["top5"]}


def classification_table(results: dict[str, Any]) -> str:
    """Return top-1, top-5 and the top-1 of each class as text; of many classes, that of the weakest."""
    classes = [row for row in results["classes"] if row["top1"] is not None]
    title = "top-1 of each class, and its images"
    if len(classes) > MOST_LINES:
        title = f"top-1 of the {MOST_LINES} weakest of {len(classes)} classes, and their images"
        classes = sorted(classes, key=lambda row: row["top1"])[:MOST_LINES]
    width = max([9, *(len(row["name"]) for row in classes)])
    lines = [plural(results["images"], "image")]
    lines += [f"{name:<{width}}{value:>10.4f}" for name, value in totals(results).items()]
    return "\n".join([*lines, title, *(f"{row['name']:<{width}}{row['top1']:>10.4f}{row['images']:>8}" for row in classes)])
