"""Caches of decoded training images. Samples are the same with and without them."""

import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from data.reader import ImageReader, ScaledImage
from data.sampler import NUM_ROTATING_POOLS
from detector.batch import Size
from detector.imaging.letterbox import fit_letterbox
from detector.text import plural

MAX_MEMORY_SHARE = 0.8  # of the free memory, for a RamCache


class PoolCache:
    """Keeps the images of a worker's current pools, at most ``max_pools`` of them; see ``EpochOrder.rotated_order``.

    If there are W workers and W divides ``max_pools``, each worker sees and holds only max_pools / W pools at a time. The
    cache never changes a sample: pools depend on seed and epoch, and images on their files.
    """

    def __init__(self, max_pools: int = NUM_ROTATING_POOLS) -> None:
        self.max_pools = max_pools
        self._slots: dict[int, tuple[tuple[int, int], dict[int, ScaledImage | None]]] = {}

    def get(self, pool: tuple[int, int], index: int, load: Callable[[int], ScaledImage | None]) -> ScaledImage | None:
        """Return image ``index`` of the ``pool`` (epoch and number); call ``load(index)`` if it is not in the cache."""
        slot = pool[1] % self.max_pools
        if slot not in self._slots or self._slots[slot][0] != pool:
            self._slots[slot] = pool, {}
        images = self._slots[slot][1]
        if index not in images:
            images[index] = load(index)
        return images[index]


class RamCache:
    """Keeps all images of a split, decoded and scaled to fit ``size``, in memory that worker processes share.

    Raises ValueError if they need more memory than is free.
    """

    def __init__(self, reader: ImageReader, size: Size) -> None:
        self.reader, self.size = reader, size
        self.placements = [fit_letterbox(tuple(original), size) for original in reader.annotations.sizes.tolist()]
        # Of each image in ``pixels``, and the end of the last one.
        self.offsets = np.cumsum([0] + [3 * placement.height * placement.width for placement in self.placements])
        self.check()
        self.pixels: torch.Tensor | None = None

    def check(self, processes: int = 1) -> None:
        """Raise a ValueError unless there is memory for ``processes`` on this machine, each with its own copy."""
        need, free = int(self.offsets[-1]) * processes, min(available_memory(), shared_memory())
        self.need = f"{need / 1e9:.1f} GB for {plural(len(self.placements), 'image')}" + (
            f" x {processes} processes" if processes > 1 else ""
        )
        if need > MAX_MEMORY_SHARE * free:
            raise ValueError(
                f"data.cache is ram, which needs {self.need}, but {free / 1e9:.1f} GB of memory that can be shared are "
                "free (in a container, look at the size of /dev/shm); set data.cache to recent, or data.image_size lower"
            )

    def fill(self) -> None:
        """Decode all images. Bad images raise an error or are skipped, as by ImageReader."""
        rank_zero_info(f"data.cache: decoding into memory, {self.need}; {available_memory() / 1e9:.1f} GB are free")
        self.pixels = torch.empty(int(self.offsets[-1]), dtype=torch.uint8).share_memory_()
        self.scales = np.zeros((len(self.placements), 2))  # 0: skipped
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._load, range(len(self.placements))))

    def get(self, index: int) -> ScaledImage | None:
        """Return image ``index``, or None if it was skipped."""
        if not self.scales[index, 0]:
            return None
        return ScaledImage(self._view(index), tuple(self.scales[index].tolist()))

    def _load(self, index: int) -> None:
        scaled = self.reader.read_scaled(index, self.size)
        if scaled is not None:
            self._view(index)[:] = scaled.image
            self.scales[index] = scaled.scale

    def _view(self, index: int) -> np.ndarray:
        assert self.pixels is not None, "fill the cache first"
        placement = self.placements[index]
        pixels = self.pixels[self.offsets[index] : self.offsets[index + 1]].numpy()
        return pixels.reshape(placement.height, placement.width, 3)


def shared_memory() -> float:
    """Return the bytes of memory that processes can share. A container often has only 64 MB by default."""
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else math.inf


def available_memory() -> int:
    """Return the bytes that this machine or container can use without swapping."""
    limits = [_machine_memory()]
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").is_file() and (limit := (group / "memory.max").read_text().strip()) != "max":
        reclaimable = dict(line.split() for line in (group / "memory.stat").read_text().splitlines()).get("inactive_file", 0)
        limits.append(int(limit) - int((group / "memory.current").read_text()) + int(reclaimable))
    return min(limits)


def _machine_memory() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
