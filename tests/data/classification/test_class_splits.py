"""Checks of classes and splits before training."""

from pathlib import Path

import pytest

from data.classification.class_splits import ClassSplits, check_splits, shorten
from data.classification.index import IndexBuilder


def splits(train: list[int], val: list[int], names: list[str]) -> ClassSplits:
    """Return splits with so many images of each class."""
    indexes = {}
    for split, counts in (("train", train), ("val", val)):
        builder = IndexBuilder(Path())
        for label, count in enumerate(counts):
            builder.add(b"a", label, [b"%d.png" % n for n in range(count)])
        indexes[split] = builder.build()
    return ClassSplits(names, list(range(len(names))), indexes, {"train": "here", "val": "there"})


def test_classes_are_listed_with_the_number_of_images(caplog: pytest.LogCaptureFixture) -> None:
    check_splits(splits([3, 2], [1, 1], ["cat", "dog"]))
    assert "train: 5 images in 2 classes (cat, dog); here" in caplog.text
    assert "val: 2 images; there" in caplog.text
    assert shorten([str(n) for n in range(1000)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... 1000 in all"


def test_nothing_to_learn_or_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"here has one class only, 'cat'; a classifier needs two"):
        check_splits(splits([3], [1], ["cat"]))
    with pytest.raises(ValueError, match=r"here has no class with images; .* data\.root/train/<class>/"):
        check_splits(splits([], [], []))
    with pytest.raises(ValueError, match=r"val has no images: there, of 2 images; give more images, a larger"):
        check_splits(splits([1, 1], [0, 0], ["cat", "dog"]))


def test_classes_without_validation_images_are_named() -> None:
    with pytest.warns(UserWarning, match=r"1 class of train has no images there, .*: dog; .* a larger data\.val_share"):
        check_splits(splits([3, 2], [1, 0], ["cat", "dog"]))
