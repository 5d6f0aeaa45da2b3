"""The table of what was replaced."""

import torch
from torch import Tensor, nn

from detector.network.replace.parts import ReplacedPart
from detector.network.replace.table import replacement_table


class OnDevicesOnly(nn.Module):
    """A 1x1 convolution that cannot run on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        assert x.sum().item() == 0
        return self.conv(x)


def test_costs_before_and_after() -> None:
    plain, own = (nn.Sequential(conv, nn.Conv2d(8, 2, 1)) for conv in (nn.Conv2d(3, 8, 3, padding=1), OnDevicesOnly()))
    part = ReplacedPart({}, "Conv2d", "OnDevicesOnly", {})
    with torch.device("meta"):
        plain = plain.to("meta")
    title, header, row, total = replacement_table(plain, own, {"0": part}, (4, 6)).splitlines()
    assert title == "replaced 1 module (multiply-adds of an image of 4 x 6 pixels)"
    assert header.split() == ["module", "before", "after", "output", "parameters", "multiply-adds"]
    # 3 * 8 * 9 + 8 and 3 * 8 parameters; without the bias, times 24 pixels
    assert " ".join(row.split()) == "0 Conv2d OnDevicesOnly 8x4x6 224 -> 24 5,184 -> 576"
    # and 8 * 2 + 2; without the bias, times 24
    assert " ".join(total.split()) == "the detector 242 -> 42 5,568 -> 960"
