"""The index of images as flat arrays."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from data.classification.index import ImageIndex, IndexBuilder


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    builder = IndexBuilder(tmp_path)
    builder.add(b"cat", 0, [b"1.png", "é.jpg".encode(), b"\xff.png"])
    builder.add(b"cat/sub", 0, [b"1.png"])
    builder.add(b"empty", 1, [])
    builder.add(b"dog", 2, [b"1.png"])
    builder.add(b"cat", 0, [b"2.png"])
    return builder.build()


def test_paths_and_labels_are_in_the_order_in_which_they_were_added(index: ImageIndex, tmp_path: Path) -> None:
    paths = [b"cat/1.png", "cat/é.jpg".encode(), b"cat/\xff.png", b"cat/sub/1.png", b"dog/1.png", b"cat/2.png"]
    assert [index.relative_path(n) for n in range(len(index))] == paths
    assert [index.label(n) for n in range(len(index))] == [0, 0, 0, 0, 2, 0]
    assert index.folders == [b"cat", b"cat/sub", b"dog"]
    assert index.path(2) == tmp_path / "cat" / os.fsdecode(b"\xff.png")
    assert index.name(1) == "cat/é.jpg"
    assert index.counts(4).tolist() == [5, 0, 1, 0]


def test_an_index_without_images_is_empty(tmp_path: Path) -> None:
    index = IndexBuilder(tmp_path).build()
    assert len(index) == 0
    assert index.counts(2).tolist() == [0, 0]


def test_types_are_as_small_as_the_values_allow_and_large_enough(tmp_path: Path) -> None:
    builder = IndexBuilder(tmp_path)
    for label in range(300):
        builder.add(b"%d" % label, label, [b"x" * 250])
    index = builder.build()
    assert (index.labels.dtype, index.folder_ids.dtype, index.ends.dtype) == (np.uint16, np.uint16, np.uint32)
    assert index.relative_path(299) == b"299/" + b"x" * 250
    assert index.label(299) == 299


def test_an_image_has_no_python_object(tmp_path: Path) -> None:
    """The memory of an index is that of its arrays: a name's bytes, and 7 bytes for its end, folder and label."""
    builder, num_images = IndexBuilder(tmp_path), 70_000
    builder.add(b"cat", 0, [b"%05d.png" % n for n in range(num_images // 2)])
    builder.add(b"dog", 1, [b"%05d.png" % n for n in range(num_images // 2)])
    index = builder.build()
    arrays = (index.names, index.ends, index.labels, index.folder_ids)
    assert sum(array.nbytes for array in arrays) == num_images * (9 + 4 + 1 + 1)
    assert all(isinstance(array, np.ndarray) for array in arrays)
    assert sys.getsizeof(index.folders) < 200
