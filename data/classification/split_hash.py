"""Which images a set without validation folder holds out: a stable share, by a hash of their paths."""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from detector.text import decode_name, encode_name


def path_hashes(folder: str, names: Sequence[bytes]) -> np.ndarray:
    """Return a number in 0..1 for each image of ``folder``, a path that begins with the class: (I,) float64.

    It depends only on the path below the class folders, so an image keeps it when others are added, and when the set is
    moved or copied: separators are slashes, and accented letters have one form on every system.
    """
    start = blake2b(_one_form(encode_name(folder)) + b"/", digest_size=8)
    hashes = np.empty(len(names), np.uint64)
    for n, name in enumerate(names):
        of_name = start.copy()
        of_name.update(name if name.isascii() else _one_form(name))
        hashes[n] = int.from_bytes(of_name.digest(), "big")
    return hashes / 2**64


def held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Return a mask of the images of one class that are for validation, (I,): those with a hash below ``share``.

    The image with the largest hash is always for training: no class is without training images.
    """
    mask = hashes < share
    if mask.all():
        mask[hashes.argmax()] = False
    return mask


def _one_form(name: bytes) -> bytes:
    return encode_name(unicodedata.normalize("NFC", decode_name(name)))
