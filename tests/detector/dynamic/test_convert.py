"""Converting networks: ours by the names of patterns, others by patterns; from new and from trained weights."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from detector import build_detector
from detector.dynamic.conv2d import dynamic_layers
from detector.dynamic.convert import make_dynamic, upcycle_state_dict
from detector.network.config import CONVOLUTION_PATTERNS
from detector.network.head import BRANCHES


def convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}


@pytest.mark.parametrize("variant", ["yolo26_n", "yolo26_m", "yolo26_n-p2", "yolo26_n-p6"])
@pytest.mark.parametrize("where", CONVOLUTION_PATTERNS)
def test_patterns_match_all_convolutions_of_their_kind(variant: str, where: str) -> None:
    with torch.device("meta"):
        detector = build_detector(variant, 3)
        before = convolutions(detector)
        names = make_dynamic(detector, where)
    assert names == list(dynamic_layers(detector))
    assert set(names) <= set(before)
    chosen, left = [before[name] for name in names], [n for n in before if n not in names]
    if "bottlenecks" in where or where == "downsample":
        assert {conv.kernel_size for conv in chosen} == {(3, 3)}
        assert {conv.stride for conv in chosen} == {(2, 2) if where == "downsample" else (1, 1)}
        part = "neck." if where == "neck-bottlenecks" else "backbone."
        assert all(name.startswith(part) for name in names)
        similar = [n for n in left if n.startswith(part) and before[n].kernel_size == (3, 3) and before[n].groups == 1]
        assert all(before[n].stride != chosen[0].stride or n.startswith("backbone.stem") for n in similar)
    elif where == "pointwise":
        assert {conv.kernel_size for conv in chosen} == {(1, 1)}
        elsewhere = (".attention", ".feed_forward", "sppf", "head.")
        assert all(any(part in n for part in elsewhere) for n in left if before[n].kernel_size == (1, 1))
    else:
        heads = [n for n in left if n.startswith("head.")]
        assert [n for n in left if n not in heads] == ["backbone.stem.conv"]
        assert all(before[n].bias is not None for n in heads)
        assert len(heads) == 4 * len(detector.strides)


def test_names_and_patterns_combine() -> None:
    with torch.device("meta"):
        both = make_dynamic(build_detector("yolo26_n", 3), ["downsample", r"neck\.down\.0\.conv"])
        variant = build_detector("yolo26_n", 3, dynamic={"where": ["downsample", r"neck\.down\.0\.conv"]})
    assert both == [*(f"backbone.down_p{level}.conv" for level in (2, 3, 4, 5)), "neck.down.0.conv"]
    assert list(dynamic_layers(variant)) == both


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.mobilenet_v3_small(weights=None),  # depthwise
        lambda: torchvision.models.resnext50_32x4d(weights=None),  # grouped
        lambda: timm.create_model("resnet18", pretrained=False),
        lambda: timm.create_model("ghostnet_100", pretrained=False),
    ],
    ids=["mobilenet", "resnext", "timm-resnet", "timm-ghostnet"],
)
def test_other_networks_compute_the_same_upcycled(build: object, routing: str) -> None:
    torch.manual_seed(0)
    net = build().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        names = make_dynamic(net, ".*", num_experts=2, routing=routing, init="upcycle")
        assert len(names) == len(dynamic_layers(net)) > 10
        assert not convolutions(net)
        torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-5)
    net.train()(images).sum().backward()
    assert all(p.grad is not None for layer in dynamic_layers(net).values() for p in layer.parameters())


def test_a_shared_layer_stays_shared() -> None:
    conv = nn.Conv2d(3, 3, 1)
    net = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv), "c": nn.Conv2d(3, 3, 1)})
    assert make_dynamic(net, "a") == ["a", "b.0"]
    assert net["a"] is net["b"][0]
    assert isinstance(net["c"], nn.Conv2d)


def test_any_network_has_groups_of_convolutions() -> None:
    """Without the first convolution, and without those that cannot be dynamic; an error names the groups that there are."""
    convs = (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3))
    circular = nn.Conv2d(4, 4, 3, padding_mode="circular")
    groups = {"all": ["1", "2", "3"], "depthwise": ["1"], "pointwise": ["2"], "spatial": ["3"]}
    for where, names in groups.items():
        assert make_dynamic(nn.Sequential(*convs, circular), where) == names
    with pytest.raises(ValueError, match=r"'neck' names no .*; choose from all, spatial, pointwise, or give a regular"):
        make_dynamic(nn.Sequential(convs[0], convs[2], convs[3]), "neck")
    with pytest.raises(ValueError, match=r"'spatal' names no .*; did you mean 'spatial'"):
        make_dynamic(nn.Sequential(*convs), "spatal")


def test_mistakes_are_refused_and_nothing_is_replaced() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), nn.ReLU())
    for where, message in [
        ("nothing", "'nothing' names no convolution of Sequential"),
        (["0", "2"], "'2' names no convolution"),
        ([], "where is empty"),
        ("[", r"'\[' is not a regular expression"),
        (r"\d", "padding_mode='circular'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_dynamic(net, where)
    with pytest.raises(ValueError, match="unknown init 'warm'"):
        make_dynamic(net, "0", init="warm")
    with pytest.raises(ValueError, match=r"'num_expert'; did you mean num_experts\? It takes where, init, kind, "):
        make_dynamic(net, "0", num_expert=2)
    with pytest.raises(ValueError, match="where is None; give a regular expression"):
        make_dynamic(net, None)
    assert not dynamic_layers(net)


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
def test_a_dynamic_detector_with_plain_weights_computes_the_same(routing: str) -> None:
    torch.manual_seed(0)
    plain = build_detector("yolo26_n", 3)
    images = torch.rand(2, 3, 64, 96)
    plain(images)  # running statistics that are not the initial ones
    dynamic = build_detector("yolo26_n", 3, dynamic={"where": ["backbone-bottlenecks", "pointwise"], "routing": routing})
    dynamic.load_state_dict(upcycle_state_dict(dynamic, plain.state_dict()))
    with torch.no_grad():
        expected, got = plain.eval()(images), dynamic.eval()(images)
    for branch in BRANCHES:
        for kind, values in expected[branch].items():
            torch.testing.assert_close(got[branch][kind], values, rtol=1e-5, atol=1e-5)
    again = upcycle_state_dict(dynamic, dynamic.state_dict())  # dynamic already: nothing changes
    assert all(torch.equal(value, again[key]) for key, value in dynamic.state_dict().items())
