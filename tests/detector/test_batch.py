"""Sizes and boxes of the contract between data and detector."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from detector.batch import any_network_input, as_size, images_of, xywh_to_xyxy, xyxy_to_xywh

XYXY, XYWH = [[10.0, 20.0, 14.0, 26.5], [0.0, 0.0, 0.0, 0.0]], [[10.0, 20.0, 4.0, 6.5], [0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_boxes_are_converted_there_and_back(make: Any) -> None:
    xyxy, xywh = make(XYXY), make(XYWH)
    assert type(xyxy_to_xywh(xyxy)) is type(xyxy)
    assert xyxy_to_xywh(xyxy).tolist() == XYWH
    assert xywh_to_xyxy(xywh).tolist() == XYXY
    assert xywh_to_xyxy(xywh).dtype == xywh.dtype
    assert xywh.tolist() == XYWH  # the input stays as it was


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_no_boxes(make: Any) -> None:
    assert xyxy_to_xywh(make((0, 4))).shape == xywh_to_xyxy(make((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("value", [64, (64, 64), [64, 64], np.int64(64)])
def test_size_is_one_side_or_two(value: Any) -> None:
    assert as_size(value) == (64, 64)
    assert as_size([96, 64]) == (96, 64)  # height first


@pytest.mark.parametrize("value", [0, -1, [64], (64, 0), (1, 2, 3), "64", 64.0, (64, 1.5), None])
def test_other_sizes_are_refused_by_name(value: Any) -> None:
    as_given = re.escape(f"--image_size is {value!r}; ")
    with pytest.raises(
        ValueError, match=rf"^{as_given}expected one side, or height and width: whole numbers of pixels, above 0$"
    ):
        as_size(value, "--image_size")


def test_images_are_taken_from_batches_of_any_dataloader() -> None:
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    for batch in (images, [images, torch.zeros(2)], (images, ["a", "b"]), {"images": images, "targets": []}):
        assert images_of(batch) is images
    separate = images_of(([images[0], images[1]], [{}, {}]))
    assert [image.shape for image in separate] == [(3, 4, 4)] * 2
    converted = any_network_input((images,), torch.device("cpu"), torch.float64)
    torch.testing.assert_close(converted, images.double() / 255)
    (first, _) = any_network_input((list(images),), torch.device("cpu"), torch.float32)
    torch.testing.assert_close(first, images[0] / 255)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.zeros(3, 4, 4), r"a Tensor of shape \(3, 4, 4\)"),
        ({"pixels": 0}, "a dict with pixels"),
        ([], "a list"),
        (7, "a int"),
    ],
)
def test_batches_without_images_are_refused(batch: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"a batch of the dataloader is {words}; expected images"):
        images_of(batch)
