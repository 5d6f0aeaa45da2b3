"""Networks without their dynamic layers: kernels that are the mean over images, and recomputed norms."""

import pytest
import timm
import torch
from torch import nn

from detector import build_detector
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import make_dynamic, upcycle_state_dict
from detector.dynamic.to_plain import collapse, plain_convolution, recompute_norms
from tests.detector.training.test_module import Rectangles, collate


def batches(number: int = 2) -> list[dict]:
    images = Rectangles(2 * number)
    return [collate([images[2 * i], images[2 * i + 1]]) for i in range(number)]


@pytest.mark.parametrize("case", [{}, {"groups": 2, "stride": 2}, {"bias": False}], ids=str)
def test_a_plain_convolution_equals_the_layer_at_its_routing_weights(case: dict) -> None:
    layer = DynamicConv2d(4, 8, 3, padding=1, num_experts=3, **case)
    layer.fold(torch.rand(8), torch.rand(8))
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(plain_convolution(layer, layer.routing_weights(x)[0])(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("deployed", [False, True])
def test_collapse_loses_nothing_if_all_experts_are_equal(deployed: bool) -> None:
    torch.manual_seed(0)
    plain, detector = build_detector("yolo26_n", 2), build_detector("dyn_n", 2)
    detector.load_state_dict(upcycle_state_dict(detector, plain.state_dict()))
    detector = detector.deploy() if deployed else detector.eval()
    collapsed, routing_weights = collapse(detector, batches())
    assert not dynamic_layers(collapsed)
    assert dynamic_layers(detector)
    assert all(float(weights.sum()) == pytest.approx(2) for weights in routing_weights.values())
    images = torch.rand(2, 3, 64, 64)
    got, expected = collapsed(images)["one2one"], detector(images)["one2one"]
    torch.testing.assert_close(got["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    if not deployed:
        plain.load_state_dict(collapsed.state_dict())


def test_collapse_takes_the_mean_routing_weights() -> None:
    torch.manual_seed(0)
    detector = build_detector("dyn_n", 2).eval()
    data = batches(2)
    name, layer = next(iter(dynamic_layers(detector).items()))
    recorded: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, inputs: recorded.append(module.routing_weights(inputs[0])))
    for batch in data:
        detector(batch["images"] / 255)
    expected = torch.cat(recorded).mean(dim=0)
    torch.testing.assert_close(collapse(detector, data)[1][name], expected, rtol=0, atol=1e-6)


def test_collapse_needs_dynamic_layers_and_images() -> None:
    with pytest.raises(ValueError, match="no dynamic layer"):
        collapse(build_detector("yolo26_n", 2), batches())
    with pytest.raises(ValueError, match="no images"):
        collapse(build_detector("dyn_n", 2), [])


SETTINGS = [
    {"kind": "mixture", "routing": "softmax"},
    {"kind": "omni", "gates": ["input", "filter", "position"]},
    {"kind": "omni", "num_experts": 2, "groups": 2},
    {"kind": "residual", "gates": ["filter"], "bias": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_kernels_of_every_kind_become_their_mean_over_images(settings: dict) -> None:
    """Gates are correlated, so this is not the kernel of the mean gates."""
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 6, 3, padding=1, **settings)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer = layer.double().eval()
    images = torch.randn(5, 4, 7, 7, dtype=torch.float64) + torch.randn(5, 4, 1, 1, dtype=torch.float64)
    plain, mean = collapse(layer, [images[:3], images[3:]])
    each = torch.cat([layer.full_kernels(layer.routing_weights(image[None])) for image in images])
    torch.testing.assert_close(plain.weight, each.mean(dim=0))
    torch.testing.assert_close(mean[""], layer.routing_weights(images).mean(dim=0))
    if settings["kind"] != "mixture":
        assert (plain.weight - layer.full_kernels(mean[""][None])[0]).abs().max() > 1e-3
    biases = None if plain.bias is None else layer.mix_biases(layer.routing_weights(images)).mean(dim=0)
    assert (plain.bias is None and biases is None) or torch.allclose(plain.bias, biases)


def test_any_network_and_any_dataloader() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_efficientnet", num_classes=3)
    assert make_dynamic(net, r"blocks\.3\..*conv_pw", kind="omni")
    images = torch.rand(4, 3, 32, 32)
    expected, mean = collapse(net, [images])
    for loader in (
        [(images[:2], torch.zeros(2)), (images[2:], torch.zeros(2))],
        [{"images": images, "labels": torch.zeros(4)}],
        [[images, ["a", "b", "c", "d"]]],
    ):
        plain, routing_weights = collapse(net, loader)
        assert not dynamic_layers(plain)
        torch.testing.assert_close(plain(images), expected(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(routing_weights, mean)
    with pytest.raises(ValueError, match=r"a batch of the dataloader is a dict with pixels; expected images \(B, C, H, W\)"):
        collapse(net, [{"pixels": images}])


class ImageByImage(nn.Module):
    """A network that takes a list of images, as those of torchvision do. One layer has two names, another is idle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = DynamicConv2d(3, 3, 3, padding=1)
        self.again, self.idle = self.first, DynamicConv2d(3, 3, 1)

    def forward(self, images: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.again(self.first(image[None])) for image in images]


def test_lists_of_images_shared_layers_and_layers_that_do_not_run() -> None:
    net, images = ImageByImage().eval(), [torch.rand(3, 8, 8), torch.rand(3, 9, 7)]
    with pytest.warns(UserWarning, match="^idle did not run on the images, and stays dynamic"):
        plain, mean = collapse(net, [(images, ["first", "second"])])
    assert list(mean) == ["first"]
    assert isinstance(plain.first, nn.Conv2d)
    assert plain.again is plain.first
    assert isinstance(net.again, DynamicConv2d)


def normed_network() -> nn.Sequential:
    torch.manual_seed(0)
    norm, frozen = nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm2d(4), frozen)
    nn.init.uniform_(norm.weight)
    return net


def test_norms_are_recomputed_over_all_images_and_in_order() -> None:
    """Each sees the images as the layers before it give them, in evaluation: without dropout."""
    net, images = normed_network().train(), 3 * torch.rand(6, 3, 6, 6) + 1
    assert recompute_norms(net, [images[:4], images[4:]]) == ["0", "2", "5"]
    parts = [4 / 6, 2 / 6]
    means = sum(part * batch.mean(dim=(0, 2, 3)) for part, batch in zip(parts, images.split(4)))
    torch.testing.assert_close(net[0].running_mean, means)
    variances = sum(part * batch.transpose(0, 1).flatten(1).var(dim=1) for part, batch in zip(parts, images.split(4)))
    torch.testing.assert_close(net[0].running_var, variances)
    assert net.training
    assert [net[n].momentum for n in (0, 2, 5)] == [0.1] * 3
    one_batch = normed_network()
    recompute_norms(one_batch, [images])
    hidden = one_batch[2].eval()(one_batch[1](one_batch[0].eval()(images))).relu()
    torch.testing.assert_close(one_batch[5].running_mean, hidden.mean(dim=(0, 2, 3)), rtol=1e-2, atol=1e-2)


def test_only_norms_after_the_given_modules_are_recomputed() -> None:
    net, images = normed_network(), torch.rand(4, 3, 6, 6)
    before = net[0].running_mean.clone()
    assert recompute_norms(net, [images], after=["1"]) == ["2", "5"]
    assert torch.equal(net[0].running_mean, before)
    assert recompute_norms(net, [images], after=["6"]) == []
    with pytest.raises(ValueError, match="'9' is no module of the network"):
        recompute_norms(net, [images], after=["9"])
    with pytest.raises(ValueError, match="has no images"):
        recompute_norms(net, [])
