"""Blocks in place of modules of a detector."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detector.dynamic import DynamicConv2d
from detector.network.model import Detector, build_detector
from detector.network.replace.parts import replace_parts
from tests.detector.network.replace.blocks import Fresh, SqueezeExcitation

BLOCKS = "tests.detector.network.replace.blocks"


def entry(where: str | list[str], class_path: str, **arguments: Any) -> dict[str, Any]:
    where = [where] if isinstance(where, str) else where
    class_path = class_path if "." in class_path else f"{BLOCKS}.{class_path}"
    return {"where": where, "layer": {"class_path": class_path, "init_args": arguments}}


def seeded(**overrides: Any) -> tuple[Detector, list[float]]:
    """Return a detector under one seed, and the next numbers of all global generators."""
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002  the user's blocks may draw from it
    return build_detector("yolo26_n", 2, **overrides), [float(torch.rand(1)), random.random(), np.random.rand()]  # noqa: NPY002


class Tiny(nn.Module):
    """What ``replace_parts`` needs of a detector."""

    strides, convolution_patterns = [2], {}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


@pytest.fixture(scope="module")
def plain() -> tuple[Detector, list[float]]:
    return seeded()


def test_under_one_seed_everything_else_is_equal(plain: tuple[Detector, list[float]]) -> None:
    entries = [
        entry("backbone.stage_p[23].blocks.*.conv", "SqueezeExcitation"),
        entry(["neck.down.1.conv"], "Fresh", size=5),
        entry("stage_p4", "torch.nn.Identity"),
        entry("pointwise", "detector.DynamicConv2d", kind="residual")
        | {"where": ["neck.bottom_up.0.split.conv", "neck.bottom_up.1.merge.conv"]},
    ]
    detector, numbers = seeded(replace=entries)
    assert numbers == plain[1]
    inside = tuple(f"{name}." for name in detector.replaced)
    ours = {name: value for name, value in detector.state_dict().items() if not name.startswith(inside)}
    before = {name: value for name, value in plain[0].state_dict().items() if not name.startswith(inside)}
    assert len(ours) > 500
    torch.testing.assert_close(ours, before, rtol=0, atol=0)
    # Kept modules keep their values; blocks are where they were wanted, in the network's order.
    kernel = "backbone.stage_p3.blocks.0.conv1.conv"
    assert torch.equal(detector.get_submodule(kernel).conv.weight, plain[0].get_submodule(kernel).weight)
    assert [type(detector.get_submodule(name)) for name in detector.replaced] == [
        *[SqueezeExcitation] * 4, nn.Identity, Fresh, DynamicConv2d, DynamicConv2d,
    ]  # fmt: skip
    part = detector.replaced[kernel]
    assert (part.old_class, part.new_class, part.kept) == ("Conv2d", "SqueezeExcitation", {"weight": "conv.weight"})


def test_blocks_get_type_and_mode_of_the_module() -> None:
    network = Tiny().double().eval()
    replace_parts(network, [entry("first", "Fresh"), entry("second", "WithParts", act="torch.nn.Dropout")])
    assert type(network.first) is Fresh
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert network.first.index.dtype == torch.int64
    assert not any(module.training for module in network.modules())


def test_a_module_with_several_names_becomes_one_block() -> None:
    network = Tiny()
    network.act2 = network.act
    parts = replace_parts(network, [entry("act*", "torch.nn.Identity")])
    assert list(parts) == ["act", "act2"]
    assert network.act is network.act2
    assert type(network.act) is nn.Identity
    with pytest.raises(ValueError, match=r"replace.1. and replace.0. overlap: act2 and act are one module"):
        replace_parts(network, [entry("act", "WithParts"), entry("act2", "torch.nn.Identity")])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [entry("sppf", "Fails")],
            "replace.0. .*Fails.*for backbone.sppf .SPPF. fails for the input .2, 256, 2, 3. .*too late",
        ),
        ([entry("attention", "SqueezeExcitation")], "failed for the Attention.*out_channels.*my_blocks.py, line"),
        ([entry("sppf", "HalfOfTheChannels")], r"gives \(2, 128, 2, 3\) float32 .*expected \(2, 256, 2, 3\) float32"),
        ([entry("downsample", "Fresh", size=7)] * 2, "replace.1. and replace.0. overlap: backbone.down_p2.conv is replaced"),
        ([entry("sppf", "WithParts"), entry("backbone.sppf.*", "WithParts")], "backbone.sppf are one inside the other"),
        ([entry(["sppf", "stage_p9"], "WithParts")], r"replace.0. \(.*WithParts\): where: 'stage_p9' names no part"),
        ([entry("backbone.unused", "WithParts")], "backbone.unused cannot be replaced: the network does not call it"),
    ],
)
def test_mistakes_change_nothing(plain: tuple[Detector, list[float]], entries: list[Any], message: str) -> None:
    detector = plain[0]
    detector.backbone.unused = nn.Linear(1, 1)
    before = list(detector.modules())
    with pytest.raises(ValueError, match=message):
        replace_parts(detector, entries)
    assert list(detector.modules()) == before
    del detector.backbone.unused
