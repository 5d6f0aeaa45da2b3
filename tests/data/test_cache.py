"""Caches never change a sample, and hold as few images as they promise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import Augmentation, CocoDataModule
from data import cache as cache_module
from data.cache import PoolCache, RamCache, available_memory
from data.reader import ImageReader
from data.sampler import NUM_ROTATING_POOLS, EpochOrder, EpochSampler
from tests.data.test_datamodule import fingerprint


@pytest.mark.parametrize(
    ("augment", "widths"),
    [(Augmentation(pool=4, mixup=0.3), {128}), (Augmentation(pool=4, multi_scale=0.5, degrees=5), {64, 128, 192})],
    ids=["mixup", "multi-scale"],
)
def test_no_cache_changes_a_sample(tiny_arguments: dict[str, Any], augment: Augmentation, widths: set[int]) -> None:
    runs, loaded_widths = [], set()
    for cache in ("none", "recent", "ram"):
        for workers in (0, 2):
            more = {"cache": cache, "num_workers": workers, "augment": augment, "batch_size": 2, "image_size": 128}
            loader = CocoDataModule(**tiny_arguments | more).train_dataloader()
            batches = [batch for _ in range(2) for batch in loader]
            runs.append([fingerprint(batch) for batch in batches])
            loaded_widths |= {batch["images"].shape[-1] for batch in batches}
    assert all(run == runs[0] for run in runs)
    assert loaded_widths == widths
    assert len({row[1] for batch in runs[0] for row in batch}) == 16  # and epochs differ


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_a_pool_cache_decodes_each_image_once_and_holds_few(workers: int) -> None:
    pool, batch = 16, 4
    order = EpochOrder(pool * NUM_ROTATING_POOLS * 2, 0, pool)
    keys = list(EpochSampler(order, batch, [(64, 64)]))
    caches, loads = [PoolCache() for _ in range(workers)], []
    for number in range(len(keys) // batch):
        cache = caches[number % workers]
        for key in keys[number * batch : (number + 1) * batch]:
            pool_number, members = order.pool_of(key.index, 0)
            for index in (key.index, *np.random.default_rng([number, key.index]).choice(members, 3).tolist()):
                assert cache.get((0, pool_number), index, lambda n: loads.append(n) or n) == index
        held = sum(len(images) for _, images in cache._slots.values())
        assert held <= pool * NUM_ROTATING_POOLS // workers
    assert sorted(loads) == list(range(len(order.order(0))))


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_batches_across_pools_keep_two_pools_at_most(workers: int) -> None:
    pool, batch = 16, 6
    order = EpochOrder(pool * 24, 0, pool)
    assert not order.can_rotate_pools(batch)
    keys = list(EpochSampler(order, batch, [(64, 64)]))
    caches = [PoolCache(max_pools=2) for _ in range(workers)]
    for number, key in enumerate(keys):
        cache = caches[number // batch % workers]
        pool_number, members = order.pool_of(key.index, 0)
        for index in members.tolist():
            cache.get((0, pool_number), index, lambda n: n)
        assert sum(len(images) for _, images in cache._slots.values()) <= 3 * pool  # the last pool is a longer one


def test_too_little_memory_is_refused_with_numbers(tiny_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(3 * round(h * 64 / max(h, w)) * round(w * 64 / max(h, w)) for h, w in ((48, 64), (64, 48), (80, 60), (33, 47),
               (64, 64), (100, 50), (40, 90), (50, 50)))  # fmt: skip
    monkeypatch.setattr(cache_module, "available_memory", lambda: need / 0.8 - 10)
    with pytest.raises(ValueError, match=r"data\.cache is ram, which needs 0\.0 GB for 8 images, but 0\.0 GB"):
        CocoDataModule(**tiny_arguments | {"cache": "ram"})
    monkeypatch.setattr(cache_module, "available_memory", lambda: need / 0.8 + 10)
    data = CocoDataModule(**tiny_arguments | {"cache": "ram"})
    data.train_dataloader()
    monkeypatch.setattr(cache_module, "shared_memory", lambda: need / 0.8 - 10)
    with pytest.raises(ValueError, match="in a container, look at the size of /dev/shm"):
        CocoDataModule(**tiny_arguments | {"cache": "ram"})
    with pytest.raises(ValueError, match="for 8 images x 2 processes"):
        data._ram_cache.check(2)


def test_bad_images_in_the_ram_cache_are_skipped(tiny_arguments: dict[str, Any], tiny_coco: Path) -> None:
    (tiny_coco / "images/train/image_2.png").write_bytes(b"spoilt")
    data = CocoDataModule(**tiny_arguments | {"cache": "ram", "on_bad_image": "skip"})
    with pytest.warns(UserWarning, match="skipped"):
        loader = data.train_dataloader()
    ids = [target["image_id"] for batch in loader for target in batch["targets"]]
    assert 103 not in ids
    assert len(ids) == 8
    with pytest.raises(ValueError, match="not a whole image"):
        CocoDataModule(**tiny_arguments | {"cache": "ram"}).train_dataloader()


def test_available_memory_is_that_of_this_machine() -> None:
    assert 1e8 < available_memory() < 1e14
    assert cache_module.shared_memory() > 0


def test_the_ram_cache_holds_the_decoded_images(large_images: ImageReader) -> None:
    cache = RamCache(large_images, (64, 64))
    cache.fill()
    for index in range(len(large_images.annotations)):
        one, other = cache.get(index), large_images.read_scaled(index, (64, 64))
        np.testing.assert_array_equal(one.image, other.image)
        assert one.scale == pytest.approx(other.scale, rel=1e-12)
