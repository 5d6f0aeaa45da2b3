"""The order of images over seeds, epochs, processes and interruptions."""

from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from data import ImageFolderDataModule
from data.base_datamodule import BaseDataModule
from data.sampler import (
    NUM_ROTATING_POOLS,
    EpochOrder,
    EpochSampler,
    ShardSampler,
    order_by_aspect_ratio,
    size_step,
    training_sizes,
)

SIZE = (64, 64)


def make_sampler(
    length: int, seed: int = 0, *replicas_and_rank: int, batch: int = 1, sizes: list | None = None, start: tuple = (0, 0)
) -> EpochSampler:
    return EpochSampler(EpochOrder(length, seed, pool=4), batch, sizes or [SIZE], *replicas_and_rank, resume_position=start)


def test_every_iteration_is_a_new_epoch_in_a_new_order() -> None:
    sampler = make_sampler(20)
    epochs = [list(sampler) for _ in range(3)]
    assert [{key.epoch for key in keys} for keys in epochs] == [{0}, {1}, {2}]
    orders = [[key.index for key in keys] for keys in epochs]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, second = make_sampler(20, 3), make_sampler(20, 3, start=(1, 0))
    list(first)
    assert list(first) == list(second)
    assert list(make_sampler(20, 3)) != list(make_sampler(20, 4))


@pytest.mark.parametrize(("length", "replicas"), [(21, 1), (21, 2), (21, 3), (2, 3), (8, 4)])
def test_processes_share_one_order_in_equal_parts(length: int, replicas: int) -> None:
    parts = [list(make_sampler(length, 0, replicas, rank, start=(5, 0))) for rank in range(replicas)]
    size = -(-length // replicas)
    assert [len(part) for part in parts] == [size] * replicas
    assert [len(make_sampler(length, 0, replicas, rank)) for rank in range(replicas)] == [size] * replicas
    assert {key.index for part in parts for key in part} == set(range(length))
    together = [key for step in zip(*parts) for key in step][:length]
    assert together == list(make_sampler(length, 0, batch=replicas, start=(5, 0)))  # the same global batches


def test_an_interrupted_epoch_goes_on_where_it_was() -> None:
    sizes = [(32, 32), (64, 64), (96, 96)]
    whole = list(make_sampler(20, 0, 2, 1, batch=3, sizes=sizes, start=(4, 0)))
    resumed = make_sampler(20, 0, 2, 1, batch=3, sizes=sizes, start=(4, 6))
    assert list(resumed) == whole[6:]
    assert len(list(resumed)) == 10  # the next epoch is whole again
    assert len(resumed) == 10


def test_set_epoch_chooses_the_epoch() -> None:
    """A Trainer calls it before each epoch, and may throw an iterator away."""
    sampler = make_sampler(5, start=(3, 2))
    keys = [next(iter(sampler))]
    for epoch in (3, 7, 7, 9):
        sampler.set_epoch(epoch)
        keys.append(next(iter(sampler)))
    assert [key.epoch for key in keys] == [3, 3, 7, 7, 9]
    assert keys[0] == keys[1] == list(make_sampler(5, start=(3, 0)))[2]
    assert keys[2] == keys[3] == next(iter(make_sampler(5, start=(7, 0))))


@pytest.mark.parametrize(("length", "pool"), [(20, 4), (23, 4), (3, 4), (4, 4), (9, 0)])
def test_pools_partition_the_images(length: int, pool: int) -> None:
    order = EpochOrder(length, 0, pool)
    pools = {}
    for index in range(length):
        number, members = order.pool_of(index, epoch=2)
        assert index in members
        assert pools.setdefault(number, members.tolist()) == members.tolist()
    assert sorted(i for members in pools.values() for i in members) == list(range(length))
    sizes = [len(pools[number]) for number in sorted(pools)]
    if 0 < pool <= length:
        assert set(sizes[:-1]) <= {pool}
        assert pool <= sizes[-1] < 2 * pool
    else:
        assert sizes == [length]
    if length > 4:
        assert order.pool_of(0, 0)[1].tolist() != order.pool_of(0, 1)[1].tolist()


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_each_pool_has_one_worker_and_neighboring_batches_other_pools(workers: int) -> None:
    pool, batch = 16, 4
    order = EpochOrder(pool * NUM_ROTATING_POOLS * 3, 0, pool)
    keys = list(EpochSampler(order, batch, [SIZE]))
    visits = [{order.pool_of(key.index, 0)[0] for key in keys[i : i + batch]} for i in range(0, len(keys), batch)]
    assert {len(pools) for pools in visits} == {1}
    numbers = [pools.pop() for pools in visits]
    assert all(
        len(set(numbers[i : i + NUM_ROTATING_POOLS])) == NUM_ROTATING_POOLS
        for i in range(0, len(numbers), NUM_ROTATING_POOLS)
    )
    workers_of: dict[int, set[int]] = {}
    for number, pool_number in enumerate(numbers):
        workers_of.setdefault(pool_number, set()).add(number % workers)
    assert all(len(worker_numbers) == 1 for worker_numbers in workers_of.values())


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 8, 100])
@pytest.mark.parametrize("length", [3, 16, 131])
def test_whatever_the_batch_size_every_image_comes_once(length: int, batch: int) -> None:
    assert sorted(key.index for key in make_sampler(length, batch=batch)) == list(range(length))


def test_sizes_belong_to_batches_and_depend_on_seed_epoch_and_number() -> None:
    sizes = training_sizes((128, 128), 0.5)
    assert sizes == [(64, 64), (128, 128), (192, 192)]
    keys = list(make_sampler(600, 0, batch=4, sizes=sizes))
    batch_sizes = [{key.size for key in keys[i : i + 4]} for i in range(0, 600, 4)]
    assert {len(different) for different in batch_sizes} == {1}
    counts = [batch_sizes.count({size}) for size in sizes]
    assert min(counts) > 30
    halves = [list(make_sampler(600, 0, 2, rank, batch=2, sizes=sizes)) for rank in range(2)]
    assert [key.size for key in halves[0]] == [key.size for key in halves[1]] == [key.size for key in keys[::2]]


def test_steps_divide_the_size() -> None:
    assert [size_step(size) for size in ((640, 640), (96, 640), (608, 608), (50, 64))] == [64, 32, 32, 2]
    assert training_sizes((320, 640), 0.2) == [(256, 512), (256, 576), (320, 640), (384, 704), (384, 768)]
    assert training_sizes((640, 640), 0.0) == [(640, 640)]


def test_rectangles_hold_their_images_and_no_more() -> None:
    images = np.array([[480, 640], [640, 480], [427, 640], [640, 640], [100, 50], [30, 300], [333, 500]])
    order, sizes = order_by_aspect_ratio(images, (640, 640), batch=2)
    assert sorted(order.tolist()) == list(range(7))
    ratios = images[order, 0] / images[order, 1]
    assert (np.diff(ratios) >= 0).all()
    fitted = np.rint(images[order] * (640 / images[order].max(axis=1))[:, None])
    assert (fitted <= sizes).all()
    assert (sizes % 64 == 0).all()
    for start in range(0, 7, 2):
        batch = sizes[start : start + 2]
        assert (batch == batch[0]).all()
        assert (batch[0] - fitted[start : start + 2].max(axis=0) < 64).all()
    assert sizes[0].tolist() == [448, 640]


def test_rectangles_hold_images_one_pixel_wide() -> None:
    _, sizes = order_by_aspect_ratio(np.array([[1, 2000], [2000, 1]]), (640, 640), batch=1)
    assert sizes.tolist() == [[64, 640], [640, 64]]


@pytest.mark.parametrize(("length", "replicas"), [(21, 1), (21, 2), (21, 3), (2, 3)])
def test_evaluation_sees_every_image_once(length: int, replicas: int) -> None:
    order, sizes = np.arange(length)[::-1], np.arange(2 * length).reshape(length, 2)
    samplers = [ShardSampler(order, sizes, replicas, rank) for rank in range(replicas)]
    keys = [key for sampler in samplers for key in sampler]
    assert sorted(key.index for key in keys) == list(range(length))
    assert {key.index: key.size for key in keys} == dict(zip(order.tolist(), map(tuple, sizes.tolist())))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]


@pytest.mark.parametrize(
    ("samples", "batch", "processes", "limit", "smallest"),
    [
        (9, 4, 1, None, 1),
        (9, 4, 1, 1.0, 1),
        (9, 4, 1, 3, 1),
        (9, 4, 1, 2, 4),  # the last batch is not reached
        (9, 4, 1, 0.99, 4),
        (9, 4, 2, None, 1),  # 5 samples each
        (8, 4, 1, None, 4),
        (3, 4, 1, None, 3),
        (3, 1, 1, None, 1),
    ],
)
def test_the_smallest_training_batch(samples: int, batch: int, processes: int, limit: float | None, smallest: int) -> None:
    data = SimpleNamespace(num_train_samples=samples, batch_size=batch, _drops_last=lambda _: False)
    assert BaseDataModule.smallest_batch(data, processes, limit) == smallest
    sampler = EpochSampler(EpochOrder(samples, 0, 0), batch, [(64, 64)], processes)
    loader = DataLoader(list(range(len(sampler))), batch)
    if limit is None:
        assert min(map(len, loader)) == smallest
    assert BaseDataModule.num_train_batches(data, processes) == len(loader)
    data._drops_last = lambda number: ImageFolderDataModule._drops_last(data, number)
    expected = batch if (smallest, limit) == (1, None) and batch > 1 else smallest
    if limit is None:
        assert BaseDataModule.smallest_batch(data, processes) == expected
    loader = DataLoader(list(range(len(sampler))), batch, drop_last=data._drops_last(len(sampler)))
    assert BaseDataModule.num_train_batches(data, processes) == len(loader)
