"""Images of a split that are also in train: AP of them shows what was learned by heart."""

import os
from pathlib import Path

import numpy as np

from data.annotations import Annotations
from data.val_split import content_hashes

MAX_IMAGES = 20_000  # of both splits together: more are not compared before a training, only by ``data check``


def also_in_train(train: Annotations, other: Annotations) -> np.ndarray:
    """Return the indices of the images of ``other`` that have the content of a file of ``train``.

    Only files whose size in bytes is that of a file of the other split are read.
    """
    train_sizes, other_sizes = _file_sizes(train), _file_sizes(other)
    of_train = np.flatnonzero(np.isin(train_sizes, other_sizes) & (train_sizes >= 0))
    of_other = np.flatnonzero(np.isin(other_sizes, train_sizes) & (other_sizes >= 0))
    known = content_hashes([train.image_path(index) for index in of_train.tolist()])
    hashes = content_hashes([other.image_path(index) for index in of_other.tolist()])
    return of_other[np.isin(hashes, known)]


def _file_sizes(annotations: Annotations) -> np.ndarray:
    """Return the bytes of each image file, (I,); -1 for one that is missing."""

    def size(path: Path) -> int:
        try:
            return os.stat(path).st_size
        except (OSError, ValueError):
            return -1

    return np.array([size(annotations.image_path(index)) for index in range(len(annotations))], np.int64)
