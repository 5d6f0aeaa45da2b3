"""Read videos: their frames, and the time of each."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import cv2
import numpy as np

from detector.imaging.read import BadImageError
from detector.text import plural

DEFAULT_FRAME_RATE = 25.0  # for videos that do not show it
MAX_FRAME_RATE = 1000.0  # headers with more are wrong
FRAMES_TO_TIME = 20  # so many first frames show whether the rate is constant
CONVERT = "convert it, for instance to H.264 in .mp4"
MAX_WRITTEN_RATE = 60.0  # of annotated copies of videos without a constant rate


class VideoFacts(NamedTuple):
    """Facts from the header and the first frames of a video."""

    num_frames: int  # by the header, often an estimate; 0 if it is unknown
    frame_rate: float  # frames per second of an annotated copy


class VideoFrame(NamedTuple):
    """A frame of a video."""

    number: int  # from 0
    seconds: float  # its time in the file, from the first frame on
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright


def video_facts(path: Path) -> VideoFacts:
    """Return facts about a video. Raises BadImageError if OpenCV cannot read it."""
    with open_video(path) as capture:
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        times = [time for time, _ in zip(_times(capture, rate), range(FRAMES_TO_TIME))]
    if not times:
        raise BadImageError(f"{path}: has no images that OpenCV can read (sound only, or another codec); {CONVERT}")
    return VideoFacts(int(count) if 0 < count < 1e9 else 0, _rate_of(times, rate if 0 < rate < MAX_FRAME_RATE else None))


def _rate_of(times: list[float], stated: float | None) -> float:
    """Return the frames per second for an annotated copy, from the first frames' ``times`` and the rate in the header."""
    gaps = [after - before for before, after in pairwise(times)]
    if not gaps:
        return stated or DEFAULT_FRAME_RATE
    rate = 1 / mean(gaps)
    if any(abs(gap * rate - 1) > 0.3 for gap in gaps):  # uneven: one frame of the copy for the smallest gap
        return min(max(rate, 1 / min(gaps)), MAX_WRITTEN_RATE)
    return stated if stated and abs(stated / rate - 1) < 0.05 else rate


def video_frames(path: Path) -> Iterator[VideoFrame]:
    """Yield the frames of a video. Raises BadImageError at the end of one that ends before its header says."""
    number, seconds = 0, 0.0
    with open_video(path) as capture:
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        for seconds in _times(capture, rate):
            image = capture.retrieve()[1]
            if image is None:
                break
            yield VideoFrame(number, seconds, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            number += 1
    # Counts are estimates in some files, and the last frame may be shown for long in others: both must be short by a second.
    rate = rate if 0 < rate < MAX_FRAME_RATE else DEFAULT_FRAME_RATE
    is_short = 0 < count < 1e9 and count - number > rate and count / rate - seconds > 1
    if number == 0 or is_short:
        raise BadImageError(f"{path}: ends after {number} of {plural(max(int(count), 0), 'frame')}; restore the file")


def _times(capture: cv2.VideoCapture, rate: float) -> Iterator[float]:
    """Take one frame after the other, to be retrieved, and yield its time in seconds, as the file has it.

    If the file has no times, they are those of an even ``rate``.
    """
    step = 1 / (rate if 0 < rate < MAX_FRAME_RATE else DEFAULT_FRAME_RATE)
    previous = -step
    while capture.grab():
        seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        is_known = seconds > previous if previous >= 0 else seconds >= 0
        previous = seconds if is_known else previous + step
        yield previous


@contextmanager
def open_video(path: Path) -> Iterator[cv2.VideoCapture]:
    """Open a video for reading. Raises BadImageError if OpenCV cannot."""
    with plain_name(path) as name:
        capture = cv2.VideoCapture(name)
        try:
            if not capture.isOpened():
                raise BadImageError(f"{path}: is not a video that OpenCV can read; {CONVERT}")
            yield capture
        finally:
            capture.release()


@contextmanager
def plain_name(path: Path) -> Iterator[str]:
    """Yield a name of the file or folder ``path`` in UTF-8: OpenCV crashes at others. It is a link, if need be."""
    name = str(path)
    if name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name):
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "link" + (path.suffix if path.suffix.isascii() else ""))
        try:
            os.symlink(path.absolute(), link)
        except OSError as error:
            raise BadImageError(f"{path}: its name is not UTF-8, and no link can be made ({error}); rename it") from None
        yield str(link)
