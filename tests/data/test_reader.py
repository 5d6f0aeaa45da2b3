"""Images scaled to fit the input."""

import numpy as np
import pytest

from data import reader as reader_module
from data.reader import ImageReader


def test_reduced_decoding_keeps_boxes_on_their_objects(large_images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    factors, read = [], reader_module.read_image
    monkeypatch.setattr(reader_module, "read_image", lambda p, s, u, factor: factors.append(factor) or read(p, s, u, factor))
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
