"""The classifier of pre-training: the trunk of a detector, layers in order, and no settings without a meaning."""

import re
from typing import Any

import pytest
import torch

from detector import build_detector
from detector.dynamic import dynamic_layers
from detector.network.classifier import build_classifier

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("yolo26_n", {}),
    "p6": ("yolo26_n-p6", {}),
    "mixture": ("dyn_n", {}),
    "omni, all": ("dyn_n", {"dynamic": {"kind": "omni", "where": "all"}}),
    "ParameterNet": ("yolo26_n", {"backbone": "parameternet_w050"}),
    "plain ParameterNet": ("yolo26_n", {"backbone": "parameternet_w050_plain"}),
    "timm, residual": ("yolo26_n", {"backbone": "timm/test_resnet", "dynamic": {"kind": "residual", "where": "backbone"}}),
    "timm, two strides less": ("yolo26_n-p2", {"backbone": "timm/test_efficientnet"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trunk_has_the_tensors_of_a_detector(name: str) -> None:
    """The same names, shapes and dynamic layers under the same settings; what comes after it is the classifier's own."""
    variant, overrides = NETWORKS[name]
    with torch.device("meta"):
        classifier, detector = build_classifier(variant, 7, **overrides), build_detector(variant, 2, **overrides)
    is_ours = detector.backbone.name == "yolo26"
    trunk = detector.backbone if is_ours else detector.backbone.trunk
    prefix = "backbone." if is_ours else ""
    in_classifier = classifier.network.state_dict()
    expected = {f"{prefix}{name}": value.shape for name, value in trunk.state_dict().items()}
    assert {name: in_classifier[name].shape for name in classifier.trunk} == expected
    dynamic = [f"{prefix}{name}" for name in dynamic_layers(trunk)]
    head = ["blocks.9.0.conv"] if name == "ParameterNet" else []
    assert list(dynamic_layers(classifier.network)) == dynamic + head
    parameters = [name for name, _ in classifier.network.named_parameters()]
    assert sorted(name for layer in classifier.layers for name in layer) == sorted(parameters)
    assert set(classifier.layers[-1]) == {f"{classifier.last_layer}.{kind}" for kind in ("weight", "bias")}
    assert parameters[0] in classifier.layers[0]
    assert classifier.trunk_strides == ([] if is_ours else detector.backbone.trunk_strides)


def test_layers_of_our_backbone_and_of_timm() -> None:
    """Ours are the stem, the levels, pooling, attention and the last layer; others are grouped by timm's own rule."""
    with torch.device("meta"):
        ours, ghost = (build_classifier("yolo26_n", 3, backbone=name) for name in ("yolo26", "parameternet_w050"))
    firsts = ["stem", "down_p2", "down_p3", "down_p4", "down_p5", "sppf", "attention"]
    assert [layer[0].split(".")[1] for layer in ours.layers] == [*firsts, "weight"]
    names = [next(iter(layer)).partition(".ghost1")[0] for layer in ghost.layers]
    assert names[:4] == ["conv_stem.weight", "blocks.0.0", "blocks.1.0", "blocks.2.0"]
    assert any(name.startswith("conv_head") for name in ghost.layers[-2])  # timm's rule: with the block before it
    assert len(names) == 19


def test_the_network_gets_normalized_images() -> None:
    classifier, x = build_classifier("yolo26_n", 3, backbone="timm/test_resnet").eval(), torch.rand(2, 3, 64, 64)
    assert torch.equal(classifier(x), classifier.network((x - 0.5) / 0.5))  # timm's statistics of this network
    ours = build_classifier("yolo26_n", 3, width=0.125)
    assert ours.mean.eq(0).all()
    assert ours.std.eq(1).all()


def test_dropout_and_stochastic_depth_act_in_training_only() -> None:
    for settings in ({"dropout": 0.5}, {"backbone": "parameternet_w050_plain", "drop_path": 0.6, "dropout": 0.0}):
        torch.manual_seed(0)
        network = build_classifier("yolo26_n", 3, width=0.125, depth=0.33, **settings).eval()
        x = torch.rand(2, 3, 32, 32)
        assert torch.equal(network(x), network(x))
        for norm in network.train().modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.eval()  # only dropped values differ
        assert not torch.equal(network(x), network(x))
    rates = [group[0].ghost2._forward_hooks for group in network.network.blocks[:-1]]
    assert [round(next(iter(hooks.values())).args[0], 3) for hooks in rates] == [round(0.6 * i / 8, 3) for i in range(9)]
    with torch.device("meta"):
        assert build_classifier("yolo26_n", 3, backbone="parameternet_w050").network.drop_rate == 0.2  # as published
        assert build_classifier("yolo26_n", 3, backbone="timm/test_resnet", dropout=0.3).network.drop_rate == 0.3


WITHOUT_NECK = re.escape("(a classifier has no neck: name only the convolutions of the backbone)")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_path": 0.1}, "our backbone has no stochastic depth"),
        ({"drop_path": 0.1, "backbone": "timm/ghostnet_050"}, "timm/ghostnet_050 does not take drop_path_rate"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a number from 0 to 0.99"),
        ({"class_channels": 32}, "class_channels is 32, but a classifier has no detection head"),
        ({"dynamic": {"where": ["backbone-bottlenecks", "neck-bottlenecks"]}}, WITHOUT_NECK),
        ({"dynamic": {"where": "neck-bottlenecks"}, "backbone": "timm/test_resnet"}, WITHOUT_NECK),
        ({"backbone": "timm/vit_tiny_patch16_224"}, "cannot be a backbone"),
        ({"backbone": "timm/test_resnet", "replace": [{"where": "x", "layer": "torch.nn.Identity"}]}, "must keep the names"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"widht": 1}, "did you mean width"),
    ],
    ids=str,
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_classifier("yolo26_n", **{"num_classes": 3} | settings)


def test_blocks_of_the_user_take_the_place_of_modules_of_our_backbone() -> None:
    entry = {"where": "backbone.stage_p4.blocks.0", "layer": "torch.nn.Identity"}
    classifier = build_classifier("yolo26_n", 3, width=0.125, replace=[entry])
    assert list(classifier.replaced) == ["backbone.stage_p4.blocks.0"]
    assert not [name for name in classifier.trunk if name.startswith("backbone.stage_p4.blocks.0.")]
