"""Images scaled to fit, and kept in memory without changing a sample."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data import Augmentation, CocoDataModule
from data import cache as images_file
from data.cache import ImageReader, PoolCache, RamCache, available_memory
from data.coco import read_coco
from data.sampler import LANES, EpochOrder, EpochSampler
from tests.conftest import write_coco
from tests.data.test_datamodule import fingerprint


@pytest.fixture
def large(tmp_path: Path) -> ImageReader:
    """Images much larger than the input, as JPEG, with a soft-edged bright rectangle each."""
    sizes = [(257, 385), (256, 384), (511, 300), (130, 131), (64, 64), (1000, 777)]
    images = [(h, w, [(7, round(w * 0.6), round(h * 0.55), round(w * 0.3), round(h * 0.35))]) for h, w in sizes]
    write_coco(tmp_path, "train", images, first_id=1)
    path = tmp_path / "annotations/train.json"
    path.write_text(path.read_text().replace(".png", ".jpg"))
    for number, (h, w, [(_, x, y, bw, bh)]) in enumerate(images):
        image = np.full((h, w, 3), 114, np.float32)
        image[y : y + bh, x : x + bw] = 230
        image = cv2.GaussianBlur(image, (0, 0), max(h, w) / 100)
        cv2.imwrite(
            str(tmp_path / f"images/train/image_{number}.jpg"), image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98]
        )
    return ImageReader(read_coco(path, tmp_path / "images/train"), "raise")


def test_reduced_decoding_leaves_boxes_where_their_objects_are(large: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    factors, read = [], images_file.read_reduced
    monkeypatch.setattr(images_file, "read_reduced", lambda p, s, factor, u: factors.append(factor) or read(p, s, factor, u))
    for index in range(len(large.annotations)):
        found = large.fitted(index, (64, 64))
        assert max(found.image.shape[:2]) == 64
        (box,) = large.annotations.objects(index)[0] * np.array(found.scale * 2)
        weight = found.image[:, :, 0].astype(float) - 114
        weight[weight < 6] = 0
        ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
        centroid = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
        np.testing.assert_allclose(centroid, (box[:2] + box[2:]) / 2, atol=0.15)
    assert factors == [4, 4, 4, 2, 1, 8]


@pytest.mark.parametrize(
    ("augment", "widths"),
    [(Augmentation(pool=4, mixup=0.3), {128}), (Augmentation(pool=4, multi_scale=0.5, degrees=5), {64, 128, 192})],
    ids=["mixup", "multi-scale"],
)
def test_no_cache_changes_a_sample(tiny_arguments: dict[str, Any], augment: Augmentation, widths: set[int]) -> None:
    runs, seen = [], set()
    for cache in ("none", "recent", "ram"):
        for workers in (0, 2):
            more = {"cache": cache, "num_workers": workers, "augment": augment, "batch_size": 2, "image_size": 128}
            loader = CocoDataModule(**tiny_arguments | more).train_dataloader()
            batches = [batch for _ in range(2) for batch in loader]
            runs.append([fingerprint(batch) for batch in batches])
            seen |= {batch["images"].shape[-1] for batch in batches}
    assert all(run == runs[0] for run in runs)
    assert seen == widths
    assert len({row[1] for batch in runs[0] for row in batch}) == 16  # and epochs differ


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_a_pool_cache_decodes_each_image_once_and_holds_few(workers: int) -> None:
    pool, batch = 16, 4
    order = EpochOrder(pool * LANES * 2, 0, pool)
    keys = list(EpochSampler(order, batch, [(64, 64)]))
    caches, loads = [PoolCache() for _ in range(workers)], []
    for number in range(len(keys) // batch):
        cache = caches[number % workers]
        for key in keys[number * batch : (number + 1) * batch]:
            pool_number, members = order.pool_of(key.index, 0)
            for index in (key.index, *np.random.default_rng([number, key.index]).choice(members, 3).tolist()):
                assert cache.get((0, pool_number), index, lambda n: loads.append(n) or n) == index
        held = sum(len(images) for _, images in cache._lanes.values())
        assert held <= pool * LANES // workers
    assert sorted(loads) == list(range(len(order.order(0))))


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_batches_across_pools_keep_two_pools_at_most(workers: int) -> None:
    pool, batch = 16, 6
    order = EpochOrder(pool * 24, 0, pool)
    assert not order.interleaves(batch)
    keys = list(EpochSampler(order, batch, [(64, 64)]))
    caches = [PoolCache(lanes=2) for _ in range(workers)]
    for number, key in enumerate(keys):
        cache = caches[number // batch % workers]
        pool_number, members = order.pool_of(key.index, 0)
        for index in members.tolist():
            cache.get((0, pool_number), index, lambda n: n)
        assert sum(len(images) for _, images in cache._lanes.values()) <= 3 * pool  # the last pool is a longer one


def test_ram_that_is_not_there_is_refused_with_numbers(
    tiny_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    need = sum(3 * round(h * 64 / max(h, w)) * round(w * 64 / max(h, w)) for h, w in ((48, 64), (64, 48), (80, 60), (33, 47),
               (64, 64), (100, 50), (40, 90), (50, 50)))  # fmt: skip
    monkeypatch.setattr(images_file, "available_memory", lambda: need / 0.8 - 10)
    with pytest.raises(ValueError, match=r"data\.cache is ram, which needs 0\.0 GB for 8 images, but 0\.0 GB"):
        CocoDataModule(**tiny_arguments | {"cache": "ram"})
    monkeypatch.setattr(images_file, "available_memory", lambda: need / 0.8 + 10)
    data = CocoDataModule(**tiny_arguments | {"cache": "ram"})
    data.train_dataloader()
    monkeypatch.setattr(images_file, "shared_memory", lambda: need / 0.8 - 10)
    with pytest.raises(ValueError, match="in a container, look at the size of /dev/shm"):
        CocoDataModule(**tiny_arguments | {"cache": "ram"})
    with pytest.raises(ValueError, match="for 8 images x 2 processes"):
        data._ram.check(2)


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
    assert images_file.shared_memory() > 0


def test_the_ram_cache_holds_what_is_decoded(large: ImageReader) -> None:
    cache = RamCache(large, (64, 64))
    cache.fill()
    for index in range(len(large.annotations)):
        one, other = cache.get(index), large.fitted(index, (64, 64))
        np.testing.assert_array_equal(one.image, other.image)
        assert one.scale == pytest.approx(other.scale, rel=1e-12)
