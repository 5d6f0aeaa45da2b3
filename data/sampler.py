"""Which image comes when: (index, epoch, size) for training, shards for evaluation."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from detector.batch import Size

LANES = 8  # pools that are worked on at the same time; worker counts that divide it, or are multiples, suit it best


class SampleKey(NamedTuple):
    """What a dataset is asked for. All that worker processes see of the training's progress is in it."""

    index: int
    epoch: int
    size: Size


class EpochOrder:
    """The random order of each epoch's images, cut into pools whose members are mixed with each other.

    It depends on ``length``, ``seed``, ``pool`` and the epoch alone. Pools have ``pool`` images, the last one fewer than
    twice as many; 0 makes one pool of all images.

    Why pools: partners drawn from the whole set would be decoded anew every time, four images for each mosaic. Partners
    drawn from what a worker happens to have decoded lately would depend on the number of workers. A pool depends on
    neither, and where one worker has a pool to itself it decodes each of its images once.
    """

    def __init__(self, length: int, seed: int, pool: int) -> None:
        self.length, self.seed = length, seed
        self.pool = pool if 0 < pool < length else length
        self._latest: tuple[int, np.ndarray, np.ndarray] | None = None

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of the images, (length,), pool after pool."""
        return self._shuffled(epoch)[0]

    def pool_of(self, index: int, epoch: int) -> tuple[int, np.ndarray]:
        """Return the number of the pool which image ``index`` belongs to, and its members' indices."""
        order, places = self._shuffled(epoch)
        number = min(int(places[index]) // self.pool, self.length // self.pool - 1)
        is_last = number == self.length // self.pool - 1
        return number, order[number * self.pool : None if is_last else (number + 1) * self.pool]

    def interleaves(self, batch: int) -> bool:
        """Whether batches of so many images keep to one pool each, so that taking pools in turn makes sense."""
        return self.pool % batch == 0 and self.pool < self.length

    def interleaved(self, epoch: int, batch: int) -> np.ndarray:
        """Return the indices in the order of training, ``batch`` being the number of images in a step of all processes.

        Successive batches come from different pools, LANES of them in turn: so the four appearances of an image lie
        some steps apart, and each pool's batches go to the same worker.
        """
        order = self.order(epoch)
        if not self.interleaves(batch):
            return order
        blocks = []
        num_pools = self.length // self.pool
        for first in range(0, num_pools, LANES):
            count = min(LANES, num_pools - first)
            pools = order[first * self.pool : (first + count) * self.pool]
            blocks.append(pools.reshape(count, -1, batch).swapaxes(0, 1).reshape(-1))
        return np.concatenate([*blocks, order[num_pools * self.pool :]])

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order, and each image's place in it; those of the latest epoch are kept."""
        if self._latest is None or self._latest[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            places = np.empty_like(order)
            places[order] = np.arange(self.length)
            self._latest = epoch, order, places
        return self._latest[1:]


class EpochSampler(Sampler[SampleKey]):
    """Yields Keys in an order that depends on the EpochOrder, the epoch and the global batch size alone.

    With several replicas each yields its own part of the same order, wrapped around so that all parts are equally long:
    together their batches are those of one process with a batch as large as all of theirs.

    ``sizes`` are the sizes to train at; which one a batch has depends on seed, epoch and its number in the epoch.

    ``resume`` is where an interrupted run goes on: the epoch of the first ``__iter__``, and how many of its samples to
    leave out. Later on, ``current_epoch`` tells the epoch; without it every ``__iter__`` is one epoch further. (Under a
    Trainer counting would go wrong: after a resume it may throw its first iterator away.)
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        sizes: list[Size],
        num_replicas: int = 1,
        rank: int = 0,
        resume: tuple[int, int] | None = None,
        current_epoch: Callable[[], int] | None = None,
    ) -> None:
        self.order, self.batch_size, self.sizes = order, batch_size, sizes
        self.num_replicas, self.rank = num_replicas, rank
        self.resume, self.current_epoch = resume, current_epoch
        self.num_iterations = 0

    def __len__(self) -> int:
        return -(-self.order.length // self.num_replicas)

    def __iter__(self) -> Iterator[SampleKey]:
        epoch, skip = self._start()
        order = self.order.interleaved(epoch, self.batch_size * self.num_replicas)
        part = np.resize(order, len(self) * self.num_replicas)[self.rank :: self.num_replicas]
        num_batches = -(-len(part) // self.batch_size)
        # 1 beside the seed: a stream of its own
        chosen = np.random.default_rng([self.order.seed, 1, epoch]).integers(len(self.sizes), size=num_batches).tolist()
        for place, index in enumerate(part.tolist()[skip:], start=skip):
            yield SampleKey(index, epoch, self.sizes[chosen[place // self.batch_size]])

    def _start(self) -> tuple[int, int]:
        count, self.num_iterations = self.num_iterations, self.num_iterations + 1
        first_epoch, skip = self.resume or (0, 0)
        if count == 0 and self.resume is not None:
            return first_epoch, skip
        return (first_epoch + count if self.current_epoch is None else self.current_epoch()), 0


class ShardSampler(Sampler[SampleKey]):
    """Yields every image once over all replicas. Parts may differ by one in length: nothing is padded.

    Padding would evaluate some images twice. Processes only wait for each other in the first step, when DDP evens out
    buffers, and each has that one: there are no fewer images than replicas.
    ``sizes`` (I, 2) has the height and width of the input for each image, in the order of evaluation, and ``order`` that
    order.
    """

    def __init__(self, order: np.ndarray, sizes: np.ndarray, num_replicas: int = 1, rank: int = 0) -> None:
        self.order, self.sizes = order[rank::num_replicas], sizes[rank::num_replicas]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[SampleKey]:
        for index, (height, width) in zip(self.order.tolist(), self.sizes.tolist()):
            yield SampleKey(index, 0, (height, width))


def side_step(size: Size) -> int:
    """Return the steps in which sides may change: 64, or the largest power of two that divides both sides of ``size``.

    If ``size`` suits a network, whose largest stride is 32 or 64, then so does every multiple of it.
    """
    step = 64
    while size[0] % step or size[1] % step:
        step //= 2
    return step


def training_sizes(size: Size, share: float) -> list[Size]:
    """Return the sizes within 1 - ``share`` and 1 + ``share`` of ``size``, in steps of ``side_step``."""
    step = side_step(size)
    longer = max(size)
    low, high = math.ceil(round(longer * (1 - share) / step, 6)), math.floor(round(longer * (1 + share) / step, 6))
    sizes = []
    for count in range(low, high + 1):
        ratio = count * step / longer
        sizes.append(tuple(max(round(side * ratio / step), 1) * step for side in size))
    return sizes


def rectangles(images: np.ndarray, size: Size, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of evaluation by aspect ratio, (I,), and the input size of each image in it, (I, 2).

    ``images`` (I, 2) are heights and widths. Each ``batch`` successive images share the smallest size, in steps of
    ``side_step(size)``, that holds all of them as large as they would be on ``size``.
    """
    step = side_step(size)
    order = np.argsort(images[:, 0] / images[:, 1], kind="stable")
    ratio = np.minimum(size[0] / images[order, 0], size[1] / images[order, 1])[:, None]
    fitted = np.rint(images[order] * ratio).clip(1)  # a line one pixel wide has none left
    starts = np.arange(0, len(order), batch)
    largest = np.maximum.reduceat(fitted, starts, axis=0)
    sizes = (np.ceil(largest / step) * step).astype(int)
    return order, np.repeat(sizes, np.diff([*starts, len(order)]), axis=0)
