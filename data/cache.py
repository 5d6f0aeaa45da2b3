"""The images of a split: read, scaled to fit, and kept in memory where that is wanted."""

import math
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from data.annotations import Annotations
from data.images import read_image, read_reduced
from data.sampler import LANES
from detector.imaging.letterbox import fit_letterbox
from detector.imaging.read import BadImageError
from detector.text import plural

BadImages = Literal["raise", "skip"]
RESERVE = 0.8  # the share of the memory that is free which the cache may take


@dataclass(frozen=True)
class Fitted:
    """An image scaled to fit an input, and what its boxes are to be multiplied with."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    scale: tuple[float, float]  # x, y


class ImageReader:
    """The images of a split, and what to do about those that cannot be decoded.

    ``skipped`` marks them, (I,) uint8; it is in shared memory, so that what workers find is known everywhere.
    """

    def __init__(self, annotations: Annotations, on_bad_image: BadImages) -> None:
        self.annotations, self.on_bad_image = annotations, on_bad_image
        self.skipped = torch.zeros(len(annotations), dtype=torch.uint8).share_memory_()

    def read(self, index: int) -> np.ndarray | None:
        """Return the image, (H, W, 3) uint8 RGB, or None if it is bad and bad ones are skipped."""
        path, size = self.annotations.image_path(index), self._size(index)
        return self._unless_bad(index, lambda: read_image(path, size, self.annotations.upright))

    def fitted(self, index: int, size: tuple[int, int]) -> Fitted | None:
        """Return the image scaled to fit ``size`` (height, width), as read does.

        A JPEG at least twice as large is decoded at a half, a quarter or an eighth of its size. What comes out depends on
        the file and ``size`` alone.
        """
        path, original = self.annotations.image_path(index), self._size(index)
        place = fit_letterbox(original, size)
        factor = next((f for f in (8, 4, 2) if max(original) >= f * max(place.height, place.width)), 1)
        image = self._unless_bad(index, lambda: read_reduced(path, original, factor, self.annotations.upright))
        if image is None:
            return None
        # Of an odd number of pixels the decoder makes a last one that lies half outside of the image.
        covered = original
        if image.shape[:2] != original:
            covered = image.shape[0] * factor, image.shape[1] * factor
        if image.shape[:2] != (place.height, place.width):
            image = cv2.resize(image, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
        return Fitted(image, (place.width / covered[1], place.height / covered[0]))

    def skipped_paths(self) -> list[str]:
        return [str(self.annotations.image_path(index)) for index in self.skipped.nonzero().flatten().tolist()]

    def _size(self, index: int) -> tuple[int, int]:
        return tuple(self.annotations.sizes[index].tolist())

    def _unless_bad(self, index: int, read: Callable[[], np.ndarray]) -> np.ndarray | None:
        try:
            return read()
        except BadImageError as error:
            if self.on_bad_image == "raise":
                raise
            if not self.skipped[index]:
                self.skipped[index] = 1
                warnings.warn(f"skipped: {error}", stacklevel=2)
            return None


class PoolCache:
    """Keeps the images of the pools that a worker is at, one pool for each of the sampler's lanes.

    So it holds at most ``lanes`` pools, and only lanes / W of them with W workers if that comes out even. It cannot change a
    sample: pools are drawn from seed and epoch, and images depend on their files alone.
    """

    def __init__(self, lanes: int = LANES) -> None:
        self.lanes = lanes
        self._lanes: dict[int, tuple[tuple[int, int], dict[int, Fitted | None]]] = {}

    def get(self, pool: tuple[int, int], index: int, load: Callable[[int], Fitted | None]) -> Fitted | None:
        """Return image ``index`` of the ``pool`` (epoch and number), from ``load`` if it is new."""
        lane = pool[1] % self.lanes
        if lane not in self._lanes or self._lanes[lane][0] != pool:
            self._lanes[lane] = pool, {}
        held = self._lanes[lane][1]
        if index not in held:
            held[index] = load(index)
        return held[index]


class RamCache:
    """All images of a split, decoded and scaled to fit, in memory that worker processes share.

    Raises a ValueError if they need more memory than there is; ``processes`` on this machine will each have their own.
    """

    def __init__(self, images: ImageReader, size: tuple[int, int], processes: int = 1) -> None:
        self.images, self.size = images, size
        sizes = images.annotations.sizes
        self.places = [fit_letterbox(tuple(original), size) for original in sizes.tolist()]
        lengths = [3 * place.height * place.width for place in self.places]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.check(processes)
        self.pixels: torch.Tensor | None = None

    def check(self, processes: int) -> None:
        """Raise a ValueError unless there is memory for so many processes."""
        need, free = int(self.starts[-1]) * processes, min(available_memory(), shared_memory())
        self.need = f"{need / 1e9:.1f} GB for {plural(len(self.places), 'image')}" + (
            f" x {processes} processes" if processes > 1 else ""
        )
        if need > RESERVE * free:
            raise ValueError(
                f"data.cache is ram, which needs {self.need}, but {free / 1e9:.1f} GB of memory that can be shared are "
                "free (in a container, look at the size of /dev/shm); set data.cache to recent, or data.image_size lower"
            )

    def fill(self) -> None:
        """Decode all images. Bad ones are treated as Images does."""
        rank_zero_info(f"data.cache: decoding into memory, {self.need}; {available_memory() / 1e9:.1f} GB are free")
        self.pixels = torch.empty(int(self.starts[-1]), dtype=torch.uint8).share_memory_()
        self.scales = np.zeros((len(self.places), 2))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._load, range(len(self.places))))

    def _load(self, index: int) -> None:
        found = self.images.fitted(index, self.size)
        if found is not None:
            self._view(index)[:] = found.image
            self.scales[index] = found.scale

    def _view(self, index: int) -> np.ndarray:
        assert self.pixels is not None, "fill the cache first"
        place = self.places[index]
        return self.pixels[self.starts[index] : self.starts[index + 1]].numpy().reshape(place.height, place.width, 3)

    def get(self, index: int) -> Fitted | None:
        """Return image ``index``, or None if it is bad and bad ones are skipped."""
        if not self.scales[index, 0]:
            return None
        return Fitted(self._view(index), tuple(self.scales[index].tolist()))


def shared_memory() -> float:
    """Return the bytes that processes can share: containers often have no more than 64 MB, until they are given more."""
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else math.inf


def available_memory() -> int:
    """Return the bytes that can be used without swapping, in this machine or container."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    else:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").is_file() and (most := (group / "memory.max").read_text().strip()) != "max":
        reclaimable = dict(line.split() for line in (group / "memory.stat").read_text().splitlines()).get("inactive_file", 0)
        limits.append(int(most) - int((group / "memory.current").read_text()) + int(reclaimable))
    return min(limits)
