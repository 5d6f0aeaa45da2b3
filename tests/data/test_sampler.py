"""Order of pictures over seeds, epochs, processes and interruptions."""

import pytest

from data.sampler import EpochSampler, ShardSampler


def test_every_iteration_is_a_new_epoch_in_a_new_order() -> None:
    sampler = EpochSampler(20, seed=0)
    epochs = [list(sampler) for _ in range(3)]
    assert [{epoch for _, epoch in pairs} for pairs in epochs] == [{0}, {1}, {2}]
    orders = [[index for index, _ in pairs] for pairs in epochs]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, second = EpochSampler(20, seed=3), EpochSampler(20, seed=3, resume=(1, 0))
    list(first)
    assert list(first) == list(second)
    assert list(EpochSampler(20, seed=3)) != list(EpochSampler(20, seed=4))


@pytest.mark.parametrize(("length", "replicas"), [(21, 1), (21, 2), (21, 3), (2, 3), (8, 4)])
def test_processes_share_one_order_in_equal_parts(length: int, replicas: int) -> None:
    parts = [list(EpochSampler(length, 0, replicas, rank, resume=(5, 0))) for rank in range(replicas)]
    size = -(-length // replicas)
    assert [len(part) for part in parts] == [size] * replicas
    assert [len(EpochSampler(length, 0, replicas, rank)) for rank in range(replicas)] == [size] * replicas
    indices = [index for part in parts for index, _ in part]
    assert set(indices) == set(range(length))
    together = [pair for step in zip(*parts) for pair in step][:length]
    assert together == list(EpochSampler(length, 0, resume=(5, 0)))


def test_an_interrupted_epoch_goes_on_where_it_was() -> None:
    whole = list(EpochSampler(20, 0, 2, 1, resume=(4, 0)))
    resumed = EpochSampler(20, 0, 2, 1, resume=(4, 6))
    assert list(resumed) == whole[6:]
    assert len(list(resumed)) == 10  # the next epoch is whole again
    assert len(resumed) == 10


def test_a_trainer_tells_the_epoch() -> None:
    told = iter([7, 7, 9])
    sampler = EpochSampler(5, 0, resume=(3, 2), current_epoch=lambda: next(told))
    assert [next(iter(sampler))[1] for _ in range(4)] == [3, 7, 7, 9]


@pytest.mark.parametrize(("length", "replicas"), [(21, 1), (21, 2), (21, 3), (2, 3)])
def test_evaluation_sees_every_picture_once(length: int, replicas: int) -> None:
    samplers = [ShardSampler(length, replicas, rank) for rank in range(replicas)]
    indices = [index for sampler in samplers for index in sampler]
    assert sorted(indices) == list(range(length))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
