"""Labels that may be wrong: which are named, and what the file says about them."""

from types import SimpleNamespace

from detector.report.errors import find_errors
from detector.report.suspects import Suspect, find_suspects, suspect_entries
from tests.detector.report.cases import evaluated, rows, truth

# Four cats that are detected; a dog that is called a cat; a large and a small cat without any detection; and an image
# without labels, in which a cat is found, surely in one place and not in another.
OBJECTS = [
    *((1, 1, [25 * n, 0, 20, 20]) for n in range(4)),
    (2, 5, [0, 0, 30, 30]),
    (2, 1, [60, 60, 9, 9]),
    (1, 1, [9, 60, 30, 30]),
]
RIGHT = [(1, 1, [25 * n, 0, 20, 20], 0.6 + 0.1 * n) for n in range(4)]  # the median is 0.75
WRONG = [(2, 1, [0, 0, 30, 29], 0.85), (3, 1, [5, 5, 20, 20], 0.8), (3, 1, [60, 60, 20, 20], 0.7)]


def test_the_three_kinds_by_hand() -> None:
    coco, _, matching = evaluated(truth(*OBJECTS, images=(1, 2, 3)), rows(*RIGHT, *WRONG))
    suspects = find_suspects(matching, find_errors(matching, 0.5))
    large, small = Suspect("no detection", object=6), Suspect("no detection", object=5)
    assert suspects == [Suspect("no label", 5), Suspect("other class", 4, 4), large, small]
    main = SimpleNamespace(matching=matching, coco=coco, class_names=["cat", "dog"])
    assert list(suspect_entries(main, suspects))[:3] == [
        {"image": "3.png", "image_id": 3, "kind": "no label", "box": [5, 5, 20, 20], "score": 0.8, "class": "cat",
         "label": None, "annotation_id": None},
        {"image": "2.png", "image_id": 2, "kind": "other class", "box": [0, 0, 30, 29], "score": 0.85, "class": "cat",
         "label": "dog", "annotation_id": 5},
        {"image": "1.png", "image_id": 1, "kind": "no detection", "box": [9, 60, 30, 30], "score": None, "class": None,
         "label": "cat", "annotation_id": 7},
    ]  # fmt: skip


def test_ids_are_those_of_the_file_and_silence_comes_first() -> None:
    """A weak detection on the large cat makes it less suspect than the small one. Ids of the file do not count from 1."""
    content = truth(*OBJECTS, images=(1, 2, 3))
    for annotation in content["annotations"]:
        annotation["id"] += 900
    weak = (1, 5, [9, 60, 30, 30], 0.1)
    coco, _, matching = evaluated(content, rows(*RIGHT, *WRONG, weak))
    suspects = find_suspects(matching, find_errors(matching, 0.5))
    assert [one.object for one in suspects if one.kind == "no detection"] == [5, 6]
    main = SimpleNamespace(matching=matching, coco=coco, class_names=["cat", "dog"])
    assert [entry["annotation_id"] for entry in suspect_entries(main, suspects)] == [None, 905, 906, 907]


def test_a_network_that_knows_little_accuses_nobody() -> None:
    """Without right detections, or with labels of a class of which most are missed."""
    _, _, matching = evaluated(truth(*OBJECTS, images=(1, 2, 3)), rows(*WRONG))
    assert find_suspects(matching, find_errors(matching, 0.5)) == []
    _, _, matching = evaluated(truth(*OBJECTS, images=(1, 2, 3)), rows(*RIGHT[:2]))
    assert find_suspects(matching, find_errors(matching, 0.5)) == []
