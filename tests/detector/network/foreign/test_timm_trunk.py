"""Networks of timm as trunks, against the golden table."""

import pytest
import torch
from torch import nn

from detector import build_detector
from detector.dynamic import dynamic_layers
from detector.network.foreign import timm_trunk as timm_trunk_file
from detector.network.foreign.timm_trunk import timm_trunk
from tests.golden_values import load

GOLDEN = load("parameternet")
BACKBONES = GOLDEN["timm_backbones"]["backbones"]
NETWORKS = ["test_efficientnet", "test_byobnet", "test_resnet", "hgnetv2_b0"]


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_parameters_and_dynamic_layers(name: str) -> None:
    golden = BACKBONES[name]
    with torch.device("meta"):
        trunk = timm_trunk(name, [8, 16, 32])
        dynamic = build_detector("dyn_n", 2, backbone=f"timm/{name}").backbone
    assert trunk.channels == golden["channels_8_16_32"]
    assert num_parameters(trunk.network) == golden["features_parameters"]
    # The golden rule keeps only squeeze-excitation called "se" and stems of some names plain; ours, all of them.
    others = {"test_byobnet": 8, "test_resnet": 3}.get(name, 0)
    assert len(dynamic_layers(dynamic)) == golden["exchanged"] - others
    if not others:
        assert num_parameters(dynamic.trunk) == golden["features_parameters_4_sigmoid"]


def test_a_ghost_network_gives_the_last_map_of_each_stride() -> None:
    golden = GOLDEN["models"]["ghost_width_100"]["trunk"]
    with torch.device("meta"):
        trunk = timm_trunk("ghostnet_100", [4, 8, 16, 32])
        dynamic = build_detector("dyn_n", 2, backbone="timm/ghostnet_100").backbone
        others = [timm_trunk(name, [4, 8, 16, 32]).channels for name in ("ghostnetv2_100", "repghostnet_100")]
    assert trunk.channels == golden["channels"] == [24, 40, 112, 160]
    assert num_parameters(trunk.network) == golden["plain"]["parameters"] == 2_515_908
    assert num_parameters(dynamic.trunk) == golden["4 sigmoid"]["parameters"]
    assert others == [trunk.channels] * 2


@pytest.mark.parametrize(
    ("variant", "strides", "projections"),
    [("yolo26_n-p2", [4, 8, 16, 32], ["p2", "p3", "p4", "p5"]), ("yolo26_n-p6", [8, 16, 32, 64], ["p3", "p4", "p5"])],
)
def test_levels_and_shapes_are_those_of_our_backbone(variant: str, strides: list[int], projections: list[str]) -> None:
    with torch.device("meta"):
        ours, foreign = build_detector(variant, 2), build_detector(variant, 2, backbone="timm/test_efficientnet")
    assert foreign.strides == strides
    assert list(foreign.backbone.project) == projections
    shapes = [{name: value.shape for name, value in d.state_dict().items()} for d in (ours, foreign)]
    own = ("backbone.stem", "backbone.down_p", "backbone.stage_p")
    kept = {
        n: s
        for n, s in shapes[0].items()
        if not n.startswith(own) or n.startswith(("backbone.down_p6", "backbone.stage_p6"))
    }
    assert kept.items() <= shapes[1].items()
    assert {name.split(".")[1] for name in shapes[1].keys() - kept.keys()} == {"trunk", "project", "mean", "std"}
    outputs = foreign.to("meta")(torch.empty(1, 3, 128, 64, device="meta"))
    assert outputs["one2one"]["boxes"].shape[2] == sum(128 * 64 // stride**2 for stride in strides)


def test_a_map_of_stride_64_is_used_if_the_network_has_one() -> None:
    with torch.device("meta"):
        detector = build_detector("yolo26_n-p6", 2, backbone="timm/csatv2")
    assert list(detector.backbone.project) == ["p3", "p4", "p5", "p6"]
    assert detector.backbone.down_p6 is None


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("timm/resnet81", r"no network 'resnet81'; did you mean timm/resnet18"),
        ("timm/resnet18.a9_in1k", r"no weights 'resnet18.a9_in1k'; it has resnet18.a1_in1k"),
        ("timm/efficientvit_m0", r"no feature map of stride 8; it has those of 16, 32, 64"),
        (
            "timm/vit_tiny_patch16_224",
            r"cannot be a backbone: in timm .*128 x 192 pixels.*Input height \(128\) doesn't match",
        ),
        ("hgnetv2_b0", r"backbone is 'hgnetv2_b0'; expected yolo26, parameternet_300m, .*timm/hgnetv2_b0"),
        ("efficientnet_lite0", r"did you mean timm/efficientnet_lite0\?$"),
        ("TIMM/resnet18.a1_in1k", r"did you mean timm/resnet18\.a1_in1k\?$"),
        ("parameternet_900m", r"backbone is 'parameternet_900m'.*did you mean parameternet_[36]00m or"),
    ],
)
def test_other_backbones_are_refused(backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_detector("yolo26_n", 2, backbone=backbone)


def test_a_network_without_any_map_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of timm/inception_v3 are all smaller than image size / stride."""
    monkeypatch.setattr(timm_trunk_file, "timm_levels", lambda _name: {})
    with pytest.raises(ValueError, match=r"no feature map of stride 8, 16; it has those of none\."):
        timm_trunk("inception_v3", [8, 16])
