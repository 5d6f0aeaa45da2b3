"""Images that look the same although their files differ: copies of another size, encoding or format, in two splits."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from data.check.findings import MAX_EXAMPLES, Finding, Splits
from detector.text import plural

SIDE, COARSE_SIDE = 32, 16  # of the thumbnails that are compared, and of those that are searched
LEAST_CORRELATION = 0.995  # of coarse thumbnails; copies have 0.999 and more
MAX_DIFFERENCE = 16.0  # gray levels of any pixel; copies differ by up to 16, consecutive photographs by 24 and more
MAX_RELATIVE_DIFFERENCE = 0.4  # in units of the thumbnail's standard deviation, for images of low contrast
LEAST_CONTRAST = 2.0  # standard deviation in gray levels; flat images look alike and are not compared
ROWS_AT_ONCE = 256


def thumbnail(image: np.ndarray) -> bytes:
    """Return the gray thumbnail of an image (H, W, 3) uint8 RGB, SIDE x SIDE, one byte a pixel."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).tobytes()


def near_copies(others: Sequence[bytes], train: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return pairs of an image of ``others`` and the image of ``train`` that looks the same, by their thumbnails.

    b"" is an image that is not compared. Brightness does not count: the mean is subtracted.
    """
    (rows, pixels), (train_rows, train_pixels) = _centered(others), _centered(train)
    if not len(rows) or not len(train_rows):
        return []
    coarse, train_coarse = _coarse(pixels), _coarse(train_pixels)
    pairs = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        correlations = coarse[start : start + ROWS_AT_ONCE] @ train_coarse.T
        for n, best in enumerate(correlations.argmax(axis=1).tolist(), start=start):
            limit = min(MAX_DIFFERENCE, MAX_RELATIVE_DIFFERENCE * float(pixels[n].std()))
            alike = correlations[n - start, best] >= LEAST_CORRELATION
            if alike and np.abs(pixels[n] - train_pixels[best]).max() <= limit:
                pairs.append((int(rows[n]), int(train_rows[best])))
    return pairs


def near_copy_findings(
    splits: Splits, thumbnails: dict[str, list[bytes]], digests: dict[str, list[bytes]]
) -> Iterator[Finding]:
    """Warn of images that look like one of train. Those with the ``digests`` of train's files are left to others."""
    known = set(digests.get("train", ()))
    for split in (name for name in splits if name != "train" and "train" in splits):
        compared = [b"" if d in known else one for one, d in zip(thumbnails[split], digests[split], strict=True)]
        if pairs := near_copies(compared, thumbnails["train"]):
            subject = plural(len(pairs), "image looks", "images look")
            text = (
                f"{subject} the same as one of train (another size or encoding of it, or a frame of a camera that does not "
                "move): results look better than they are; take copies out of one of the splits"
            )
            names = [f"{splits['train'].file_name(b)} ~ {splits[split].file_name(a)}" for a, b in pairs[:MAX_EXAMPLES]]
            shown = [image for a, b in pairs[:MAX_EXAMPLES] for image in ((split, a), ("train", b))]
            yield Finding("warning", split, text, names, shown)


def _centered(thumbnails: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the thumbnails to compare, and their pixels (N, SIDE, SIDE) float32 minus the mean."""
    given = [n for n, one in enumerate(thumbnails) if one]
    pixels = np.frombuffer(b"".join(thumbnails[n] for n in given), np.uint8).reshape(-1, SIDE, SIDE).astype(np.float32)
    pixels -= pixels.mean(axis=(1, 2), keepdims=True)
    enough = pixels.std(axis=(1, 2)) >= LEAST_CONTRAST
    return np.array(given, np.int64)[enough], pixels[enough]


def _coarse(pixels: np.ndarray) -> np.ndarray:
    """Return smaller thumbnails as rows of length 1, so that products of rows are correlations."""
    step = SIDE // COARSE_SIDE
    rows = pixels.reshape(-1, COARSE_SIDE, step, COARSE_SIDE, step).mean(axis=(2, 4)).reshape(len(pixels), -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
