"""Write an annotated video whose frames keep their times."""

import os
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from detector.predict.videos import plain_name

MAX_PAUSE = 60.0  # seconds: a longer one is often a fault of the file, and could fill the disk


class AnnotatedVideo:
    """An MPEG-4 file of a constant ``frame_rate``, without sound.

    A frame is shown until the next one is due: it is repeated, and a frame is left out if the next one is due at once.
    ``num_repeated`` and ``num_left_out`` count both. Until ``close``, the file has another name.
    """

    def __init__(self, path: Path, frame_rate: float, size: tuple[int, int]) -> None:
        """Start a file for frames of ``size`` (height, width). Raises ValueError if OpenCV cannot write such files."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frame_rate, self.size = path, frame_rate, size
        self.num_repeated, self.num_left_out = 0, 0
        self._unfinished = path.with_name(".unfinished.mp4")
        self._count, self._start = 0, 0.0
        self._last: np.ndarray = np.zeros((*size, 3), np.uint8)
        self._links = ExitStack()
        folder = self._links.enter_context(plain_name(path.parent))
        self._writer = cv2.VideoWriter(
            f"{folder}/{self._unfinished.name}", cv2.VideoWriter.fourcc(*"mp4v"), frame_rate, size[::-1]
        )
        if not self._writer.isOpened():
            self._links.close()
            raise ValueError(f"{path}: this build of OpenCV cannot write MPEG-4 video; give --no_images")

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Add a frame (H, W, 3) uint8 RGB that is due at ``seconds``. One of another size is resized."""
        if image.shape[:2] != self.size:
            image = cv2.resize(image, self.size[::-1])
        if self._count == 0:
            self._start = seconds
        pause = seconds - self._start - self._count / self.frame_rate
        if pause > MAX_PAUSE:
            self._start += pause - MAX_PAUSE
        due = round((seconds - self._start) * self.frame_rate)
        if due < self._count:
            self.num_left_out += 1
        else:
            for _ in range(due - self._count):
                self._writer.write(self._last)
            self.num_repeated += due - self._count
            self._count = due + 1
            self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._last = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def close(self) -> None:
        """Finish the file, and give it its name."""
        self._writer.release()
        self._links.close()
        os.replace(self._unfinished, self.path)
