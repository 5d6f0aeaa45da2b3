"""Which picture comes when: (index, epoch) pairs for training, plain shards for evaluation."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (index, epoch) in an order that depends on seed and epoch alone.

    The epoch travels with the index because worker processes see nothing else of the training's progress. With several
    replicas each yields its own part of the same order, wrapped around so that all parts are equally long.

    ``resume`` is where an interrupted run goes on: the epoch of the first ``__iter__``, and how many of its samples to
    leave out. Later on, ``current_epoch`` tells the epoch; without it every ``__iter__`` is one epoch further. (Under a
    Trainer counting would go wrong: after a resume it may throw its first iterator away.)
    """

    def __init__(
        self,
        length: int,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
        resume: tuple[int, int] | None = None,
        current_epoch: Callable[[], int] | None = None,
    ) -> None:
        self.length, self.seed, self.num_replicas, self.rank = length, seed, num_replicas, rank
        self.resume, self.current_epoch = resume, current_epoch
        self.num_iterations = 0

    def __len__(self) -> int:
        return -(-self.length // self.num_replicas)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, skip = self._start()
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        part = np.resize(order, len(self) * self.num_replicas)[self.rank :: self.num_replicas]
        return iter([(index, epoch) for index in part[skip:].tolist()])

    def _start(self) -> tuple[int, int]:
        count, self.num_iterations = self.num_iterations, self.num_iterations + 1
        first_epoch, skip = self.resume or (0, 0)
        if count == 0 and self.resume is not None:
            return first_epoch, skip
        return (first_epoch + count if self.current_epoch is None else self.current_epoch()), 0


class ShardSampler(Sampler[int]):
    """Yields every index once over all replicas, in order. Parts may differ by one in length: nothing is padded.

    Padding would evaluate some pictures twice. It is safe because validation steps do not wait for each other.
    """

    def __init__(self, length: int, num_replicas: int = 1, rank: int = 0) -> None:
        self.indices = range(rank, length, num_replicas)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
