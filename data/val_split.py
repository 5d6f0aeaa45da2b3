"""A validation split for data without one: a stable share of the training images, by a hash of their content."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from data.annotations import Annotations
from detector.arguments import as_number
from detector.imaging.read import BadImageError, read_file
from detector.text import plural

DEFAULT_SHARE = 0.2


def complete_splits(splits: dict[str, Annotations], val_split: float | None) -> dict[str, Annotations]:
    """Return the splits with a validation split: that of the data, else ``val_split`` (by default 0.2) of train.

    With ``val_split`` 0 there is none. Raises ValueError if the data have one, and ``val_split`` is given.
    """
    if val_split is not None:
        as_number(val_split, "data.val_split", 0, 0.9)
    if val_split == 0 and "val" in splits:
        raise ValueError(
            f"data.val_split is 0, but the data have a validation set, {splits['val'].name}; to train without using it, "
            "give trainer.limit_val_batches 0 instead"
        )
    if val_split == 0:
        return splits
    if "val" not in splits:
        train, val = hold_out(splits["train"], DEFAULT_SHARE if val_split is None else val_split)
        return {"train": train, "val": val} | {split: part for split, part in splits.items() if split != "train"}
    if val_split is not None:
        raise ValueError(
            f"data.val_split is {val_split}, but the data have a validation set, {splits['val'].name}; leave out one of them"
        )
    return splits


def hold_out(train: Annotations, share: float) -> tuple[Annotations, Annotations]:
    """Divide the images of ``train`` into those for training and a ``share`` for validation, and log how many they are.

    An image is for validation if the hash of its file is below ``share``. So copies of a file stay together, and an image
    keeps its split when others are added, and when files are renamed or moved. Each split gets at least one image. Raises
    ValueError if that is not possible.
    """
    hashes = content_hashes([train.image_path(index) for index in range(len(train))])
    lowest, highest = hashes.min(), hashes.max()
    if lowest == highest:
        raise ValueError(
            f"{train.name}: there is no validation set, and none can be made of {plural(len(hashes), 'image')} with one "
            "content; give more images, or a validation set (data.val_annotations and data.val_images)"
        )
    is_val = (hashes < share) & (hashes < highest) | (hashes == lowest)
    copies = len(hashes) - len(np.unique(hashes))
    kept = f"; {plural(copies, 'copy stays', 'copies stay')} with the first" if copies else ""
    rank_zero_info(
        f"{train.name}: there is no validation set, so data.val_split holds out about {share:.3g} of the images: "
        f"{is_val.sum()} for validation, {(~is_val).sum()} for training, chosen by a hash of the files' content{kept}"
    )
    val = replace(train.subset(np.flatnonzero(is_val)), name=f"{train.name}, held out", remarks=(), held_out=share)
    return train.subset(np.flatnonzero(~is_val)), val


def content_hashes(paths: list[Path]) -> np.ndarray:
    """Return a number in 0..1 for the content of each file, (I,) float64; for a file that cannot be read, of its name."""

    def number(path: Path) -> int:
        try:
            content = read_file(path)
        except BadImageError:
            content = path.name.encode("utf-8", "surrogateescape")
        return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")

    with ThreadPoolExecutor(16) as pool:  # hashing lets other threads run
        return np.array(list(pool.map(number, paths, chunksize=16)), np.uint64) / 2**64
