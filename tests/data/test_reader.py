"""Images scaled to fit the input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import reader as reader_module
from data.coco import read_coco
from data.reader import ImageReader
from detector.batch import Size
from tests.conftest import write_coco


def test_reduced_decoding_keeps_boxes_on_their_objects(large_images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = watch_factors(monkeypatch)
    for index in range(len(large_images.annotations)):
        scaled = large_images.read_scaled(index, (64, 64))
        assert max(scaled.image.shape[:2]) == 64
        (box,) = large_images.annotations.objects(index)[0] * np.array(scaled.scale * 2)
        weight = scaled.image[:, :, 0].astype(float) - 114
        weight[weight < 6] = 0
        ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
        centroid = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
        np.testing.assert_allclose(centroid, (box[:2] + box[2:]) / 2, atol=0.15)
    assert factors == [4, 4, 4, 2, 1, 8]


@pytest.mark.parametrize(
    ("side", "factor"), [(63, 1), (127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (1024, 8)]
)
def test_images_twice_as_large_are_decoded_at_a_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, factor: int
) -> None:
    """At least twice as large: with another factor training would see other pixels."""
    write_coco(tmp_path, "train", [(side // 2, side, [])], first_id=1)
    factors = watch_factors(monkeypatch)
    reader = ImageReader(read_coco(tmp_path / "annotations/train.json", tmp_path / "images/train"), "raise")
    assert reader.read_scaled(0, (64, 64)).image.shape[1] == 64
    assert factors == [factor]


def watch_factors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the factor of each image that is read."""
    factors, read = [], reader_module.read_image

    def watched(path: Path, size: Size, upright: bool, factor: int, *rest: Any) -> np.ndarray:
        factors.append(factor)
        return read(path, size, upright, factor, *rest)

    monkeypatch.setattr(reader_module, "read_image", watched)
    return factors
