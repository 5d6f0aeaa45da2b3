"""Results of a classifier, by hand."""

import json

import numpy as np
import pytest
import torch

from detector.evaluation.classification import (
    ClassPredictions,
    classification_results,
    classification_table,
    ranks,
    totals,
)

NAMES = ["circle", "square", "star", "ring", "cross", "heart"]
# One image a row: number, true class, logits of the six classes.
ROWS = [
    (0, 0, [3, 1, 0, 0, 0, 0]),  # right
    (1, 0, [1, 4, 0, 0, 0, 0]),  # taken for a square, surely
    (2, 0, [1, 2, 0, 0, 0, 0]),  # taken for a square
    (3, 1, [0, 2, 0, 0, 0, 0]),  # right
    (4, 2, [5, 4, 0, 3, 2, 1]),  # taken for a circle; its own class is the sixth
    (5, 3, [0, 0, 0, 0, 0, 0]),  # all equal: a circle, and the fourth
]


def predictions(rows: list[tuple] = ROWS) -> ClassPredictions:
    numbers, labels, logits = zip(*rows)
    return ClassPredictions.of_logits(torch.tensor(logits).float(), torch.tensor(labels), torch.tensor(numbers))


def test_results_by_hand() -> None:
    results = classification_results(predictions(), NAMES, lambda number: f"{number}.png", num_confusions=2, num_mistakes=3)
    assert (results["images"], results["top1"], results["top5"], results["top5_of"]) == (6, 2 / 6, 5 / 6, 5)
    assert [(row["images"], row["top1"]) for row in results["classes"]] == [
        *((3, 1 / 3), (1, 1.0), (1, 0.0), (1, 0.0), (0, None), (0, None))
    ]
    assert results["confusions"] == [
        {"class": "circle", "predicted": "square", "images": 2, "share": 2 / 3, "examples": ["1.png", "2.png"]},
        {"class": "star", "predicted": "circle", "images": 1, "share": 1.0, "examples": ["4.png"]},
    ]
    scores = [float(torch.tensor(ROWS[n][2]).float().softmax(dim=0).max()) for n in (1, 4, 2)]
    mistakes = results["mistakes"]
    assert [row["image"] for row in mistakes] == ["1.png", "4.png", "2.png"]  # the highest wrong scores
    assert [row["score"] for row in mistakes] == pytest.approx(scores)
    assert mistakes[0]["class_score"] == pytest.approx(float(torch.tensor(ROWS[1][2]).float().softmax(dim=0)[0]))
    assert json.loads(json.dumps(results)) == results


def test_an_image_that_comes_twice_counts_once_and_parts_may_come_in_any_order() -> None:
    parts = [predictions(ROWS[3:]), predictions(ROWS[:4])]
    joined = ClassPredictions.joined(parts)
    assert len(joined) == 6
    assert joined.indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert classification_results(joined, NAMES) == classification_results(predictions(), NAMES)


def test_scores_that_are_not_numbers_are_wrong_and_make_valid_json() -> None:
    results = classification_results(predictions([(0, 0, [torch.nan] * 6), (1, 1, [0, 1, 0, 0, 0, 0])]), NAMES)
    assert (results["top1"], results["top5"]) == (0.5, 0.5)
    (mistake,) = results["mistakes"]
    assert (mistake["score"], mistake["class_score"]) == (None, None)
    json.dumps(results, allow_nan=False)


def test_equal_logits_have_the_order_of_argmax() -> None:
    logits, labels = torch.zeros(6, 6), torch.arange(6)
    assert ranks(logits, labels).tolist() == [0, 1, 2, 3, 4, 5]
    assert (ranks(logits, labels) == 0).tolist() == (logits.argmax(dim=1) == labels).tolist()


def test_the_table_names_the_weakest_of_many_classes_and_the_top_that_exists() -> None:
    few = classification_results(predictions([(0, 0, [1, 0, 0]), (1, 1, [1, 0, 0])]), NAMES[:3])
    assert totals(few) == {"top-1": 0.5, "top-3": 1.0}
    lines = classification_table(few).splitlines()
    assert lines[0] == "2 images"
    assert [line.split() for line in lines[1:3]] == [["top-1", "0.5000"], ["top-3", "1.0000"]]
    assert [line.split() for line in lines[4:]] == [["circle", "1.0000", "1"], ["square", "0.0000", "1"]]
    many = 30
    logits = np.eye(many)
    logits[7] = logits[8]  # class 7 is taken for 8
    results = classification_results(
        predictions([(n, n, row) for n, row in enumerate(logits.tolist())]), [f"class{n}" for n in range(many)]
    )
    lines = classification_table(results).splitlines()
    assert "20 weakest of 30 classes" in lines[3]
    assert lines[4].split() == ["class7", "0.0000", "1"]
    assert len(lines) == 24
