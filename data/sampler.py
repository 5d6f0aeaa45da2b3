"""Samplers: the order of the images in training and evaluation, and the input size of each batch.

EpochOrder also cuts the order into pools. Mosaic partners are drawn from the pool of its first image, by dataset.py.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler

from detector.batch import Size

CHUNK = 65536  # keys that a sampler turns into Python numbers at a time: an epoch may have millions
NUM_ROTATING_POOLS = 8  # training takes batches from so many pools in turn; choose num_workers 1, 2, 4, 8, 16, 24, ...


class SampleKey(NamedTuple):
    """The key of a sample. Worker processes know nothing else about the progress of training."""

    index: int  # type: ignore[assignment]  # hides the method of tuples
    epoch: int
    size: Size  # of the network input


class EpochOrder:
    """The random order of the samples in each epoch, cut into pools. Mosaic and mixup mix samples of the same pool.

    A sample is an image. With ``repeats`` (I,), the factors by which each of the ``length`` images is repeated, 1 or more,
    ``length`` becomes the number of samples in an epoch, the same in all epochs, and ``images`` says which image each sample
    is. An image with the factor 2.3 comes two or three times in an epoch; each time it is augmented in another way.

    The order depends only on ``length``, ``repeats``, ``seed``, ``pool`` and the epoch. A pool has ``pool`` samples, the
    last pool up to 2 ``pool`` - 1; ``pool=0`` makes one pool of all samples.

    Ways to choose the partners of a mosaic:

    - from the whole set: each mosaic decodes four images;
    - from the images that a worker has in memory: samples depend on the number of workers;
    - from a pool: samples do not depend on the workers, and one worker with the whole pool decodes each image once.
    """

    def __init__(self, length: int, seed: int, pool: int, repeats: np.ndarray | None = None) -> None:
        self.seed, self.repeats = seed, repeats
        self.length = length = num_samples(length, repeats)
        self.pool = pool if 0 < pool < length else length
        self._order: tuple[int, np.ndarray] | None = None  # of the latest epoch
        self._positions: tuple[int, np.ndarray] | None = None
        self._images: tuple[int, np.ndarray] | None = None

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of the samples, (length,), pool after pool."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return self._order[1]

    def images(self, epoch: int) -> np.ndarray:
        """Return the index of each sample's image in ``epoch``, (length,): every image at least once.

        The factors are laid end to end in a random order, and marks one apart choose the images (systematic sampling).
        """
        if self.repeats is None:
            return np.arange(self.length)
        if self._images is None or self._images[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch, 0, 1])  # 1: not the random stream of a sample
            order = rng.permutation(len(self.repeats))
            ends = np.cumsum(self.repeats[order])
            marks = (np.arange(self.length) + rng.random()) * (ends[-1] / self.length)
            chosen = np.searchsorted(ends, marks, side="right").clip(max=len(order) - 1)
            self._images = epoch, np.sort(order[chosen])
        return self._images[1]

    def pool_of(self, index: int, epoch: int) -> tuple[int, np.ndarray]:
        """Return the number of the pool that has sample ``index``, and the indices of all samples in the pool."""
        order, positions = self.order(epoch), self._positions_in_order(epoch)
        last_pool = self.length // self.pool - 1
        number = min(int(positions[index]) // self.pool, last_pool)
        return number, order[number * self.pool : None if number == last_pool else (number + 1) * self.pool]

    def can_rotate_pools(self, batch: int) -> bool:
        """Return True if every batch of ``batch`` images comes from one pool, so that pools can rotate."""
        return self.pool % batch == 0 and self.pool < self.length

    def rotated_order(self, epoch: int, batch: int) -> np.ndarray:
        """Return the indices in training order; ``batch`` is the number of images in a step of all processes.

        Successive batches come from NUM_ROTATING_POOLS pools in turn. An image is used about 4 times per epoch: once itself,
        and about 3 times as a mosaic partner. Rotation spreads these uses over several steps, and all batches of a pool go
        to the same worker.
        """
        order = self.order(epoch)
        if not self.can_rotate_pools(batch):
            return order
        blocks = []
        num_pools = self.length // self.pool
        for first in range(0, num_pools, NUM_ROTATING_POOLS):
            pools = order[first * self.pool : min(first + NUM_ROTATING_POOLS, num_pools) * self.pool]
            blocks.append(pools.reshape(-1, self.pool // batch, batch).swapaxes(0, 1).reshape(-1))
        return np.concatenate([*blocks, order[num_pools * self.pool :]])

    def _positions_in_order(self, epoch: int) -> np.ndarray:
        """Return the position of each sample in the order, (length,)."""
        if self._positions is None or self._positions[0] != epoch:
            order = self.order(epoch)
            positions = np.empty_like(order)
            positions[order] = np.arange(self.length)
            self._positions = epoch, positions
        return self._positions[1]


def num_samples(num_images: int, repeats: np.ndarray | None) -> int:
    """Return the number of samples in an epoch of ``num_images``; ``repeats`` are the factors by which they are repeated."""
    return num_images if repeats is None else math.ceil(round(repeats.sum(), 6))


class EpochSampler(DistributedSampler[SampleKey]):
    """Yields SampleKeys for training. Their order depends only on the EpochOrder, the epoch and the global batch size.

    Each of ``num_replicas`` processes yields every ``num_replicas``-th index of the same order. The order is padded from its
    beginning, so all processes yield equally many. Together their batches are those of one process with the global batch
    size.

    ``sizes`` are the input sizes to train at; the size of a batch depends on the seed, the epoch and the batch's number.

    ``resume_position`` is the first epoch, and how many of its samples to skip. A Trainer calls ``set_epoch`` before each
    epoch; without a Trainer, each ``__iter__`` is the next epoch. Lightning never wraps a DistributedSampler in another one,
    which would divide the images among the processes a second time.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        sizes: list[Size],
        num_replicas: int = 1,
        rank: int = 0,
        resume_position: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(range(order.length), num_replicas, rank)  # type: ignore[arg-type]  # only its length is used
        self.order, self.batch_size, self.sizes = order, batch_size, sizes
        self.epoch, self.skip_samples = resume_position
        self.skip_epoch = self.epoch

    def __iter__(self) -> Iterator[SampleKey]:
        epoch = self.epoch
        self.epoch += 1
        skip = self.skip_samples if epoch == self.skip_epoch else 0
        order = self.order.rotated_order(epoch, self.batch_size * self.num_replicas)
        rng = np.random.default_rng([self.order.seed, 1, epoch])  # 1: not the random stream of the order
        size_of_batch = rng.integers(len(self.sizes), size=math.ceil(self.num_samples / self.batch_size))
        for first in range(skip, self.num_samples, CHUNK):
            positions = np.arange(first, min(first + CHUNK, self.num_samples))
            indices = order[(positions * self.num_replicas + self.rank) % len(order)]
            sizes = size_of_batch[positions // self.batch_size]
            for index, size in zip(indices.tolist(), sizes.tolist()):
                yield SampleKey(index, epoch, self.sizes[size])


class ShardSampler(DistributedSampler[SampleKey]):
    """Yields SampleKeys for evaluation: each image once over all processes.

    Processes may differ by one in the number of images. Nothing is padded: padding would evaluate some images twice. The
    processes wait for each other only in the first step, when DDP broadcasts buffers, and each has a first step if there are
    at least as many images as processes.

    ``order`` (I,) has the indices of the images, and ``sizes`` (I, 2) the height and width of the input for each of them.
    """

    def __init__(self, order: np.ndarray, sizes: np.ndarray, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(len(order)), num_replicas, rank)  # type: ignore[arg-type]  # only its length is used
        self.order, self.sizes = order[rank::num_replicas], sizes[rank::num_replicas]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[SampleKey]:
        for first in range(0, len(self.order), CHUNK):
            chunk = slice(first, first + CHUNK)
            for index, (height, width) in zip(self.order[chunk].tolist(), self.sizes[chunk].tolist()):
                yield SampleKey(index, 0, (height, width))


def size_step(size: Size) -> int:
    """Return the step in which sides may change: 64, or the largest power of two below that divides both sides.

    If ``size`` suits a network, whose largest stride is 32 or 64, so does every multiple of the step.
    """
    step = 64
    while size[0] % step or size[1] % step:
        step //= 2
    return step


def training_sizes(size: Size, multi_scale: float) -> list[Size]:
    """Return the sizes within 1 - ``multi_scale`` and 1 + ``multi_scale`` of ``size``, ascending, in steps of ``size_step``.

    Raises ValueError if ``multi_scale`` is above zero and allows only ``size`` itself.
    """
    step, longer = size_step(size), max(size)
    # Rounded first: 0.1 * 640 / 64 may be 1.0000001.
    low = math.ceil(round(longer * (1 - multi_scale) / step, 6))
    high = math.floor(round(longer * (1 + multi_scale) / step, 6))
    if multi_scale and low == high:
        raise ValueError(
            f"augment.multi_scale is {multi_scale}, in which there is no other size than {size} in steps of {step}; give at "
            f"least {step / longer:.2f}, or 0"
        )
    ratios = [count * step / longer for count in range(low, high + 1)]
    heights, widths = ([max(round(side * ratio / step), 1) * step for ratio in ratios] for side in size)
    return list(zip(heights, widths))


def order_by_aspect_ratio(image_sizes: np.ndarray, size: Size, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of evaluation by aspect ratio, (I,), and the input size of each image in that order, (I, 2).

    ``image_sizes`` (I, 2) are heights and widths. Each ``batch`` successive images share the smallest input size, in steps
    of ``size_step(size)``, that holds all of them at the scale that they have in ``size``.
    """
    step = size_step(size)
    order = np.argsort(image_sizes[:, 0] / image_sizes[:, 1], kind="stable")
    ratio = np.minimum(size[0] / image_sizes[order, 0], size[1] / image_sizes[order, 1])[:, None]
    scaled = np.rint(image_sizes[order] * ratio).clip(1)  # an image that is one pixel wide would get 0
    starts = np.arange(0, len(order), batch)
    largest = np.maximum.reduceat(scaled, starts, axis=0)
    sizes = (np.ceil(largest / step) * step).astype(int)
    return order, np.repeat(sizes, np.diff([*starts, len(order)]), axis=0)
