"""ForeignBackbone: input statistics, places for dynamic layers, and conversions that do not change what it computes."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detector import build_detector
from detector.dynamic import collapse, dynamic_layers, make_dynamic
from detector.network.foreign.adapter import input_statistics
from detector.network.model import restore_activations


def trained(backbone: str, variant: str = "yolo26_n", **overrides: object) -> nn.Module:
    """Return a detector whose normalization has statistics and factors as after a training, in evaluation mode."""
    torch.manual_seed(0)
    detector = build_detector(variant, 3, backbone=backbone, **overrides)
    for module in detector.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values, low, high in (
                ("weight", 0.5, 1.5),
                ("bias", -0.5, 0.5),
                ("running_mean", -0.3, 0.3),
                ("running_var", 0.5, 2),
            ):
                nn.init.uniform_(getattr(module, values), low, high)
    return detector.eval()


def relative_difference(maps: list[Tensor], expected: list[Tensor]) -> float:
    return max(((a - b).abs().max() / b.abs().mean()).item() for a, b in zip(maps, expected, strict=True))


def test_the_trunk_gets_normalized_images() -> None:
    detector = trained("timm/test_resnet")
    backbone, images = detector.backbone, torch.rand(2, 3, 64, 96)
    assert backbone.mean.flatten().tolist() == backbone.std.flatten().tolist() == [0.5, 0.5, 0.5]
    theirs = timm.create_model("test_resnet", features_only=True, feature_cls="getter", out_indices=(2, 3, 4)).eval()
    theirs.model.load_state_dict(backbone.trunk.state_dict())
    received = []
    handle = backbone.trunk.register_forward_pre_hook(lambda _module, args: received.append(args))
    projected = []
    for project in backbone.project.values():
        project.register_forward_pre_hook(lambda _module, args: projected.append(args[0]))
    with torch.no_grad():
        backbone(images)
        expected = theirs((images - 0.5) / 0.5)
    handle.remove()
    assert relative_difference(projected, expected) < 1e-6


def test_input_statistics_are_those_of_the_tag() -> None:
    assert input_statistics("timm/mobilenetv4_conv_small.e3600_r256_in1k") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert input_statistics("timm/mobilenetv3_large_100.miil_in21k")[0] == (0.0, 0.0, 0.0)
    assert input_statistics("timm/mobilenetv3_large_100.ra_in1k")[1] == (0.229, 0.224, 0.225)


def test_places_leave_out_stem_and_squeeze_excitation() -> None:
    with torch.device("meta"):
        detector = build_detector("yolo26_n", 2, backbone="timm/test_byobnet")
        trunk = detector.backbone.trunk
        names = {n for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d)}
        patterns, made = detector.convolution_patterns, set(make_dynamic(detector, "backbone"))
    assert names - {name.removeprefix("backbone.trunk.") for name in made} == {"stem.conv"} | {
        n for n in names if "attn" in n
    }
    # It has no depthwise convolution.
    assert list(patterns) == ["backbone", "backbone-pointwise", "backbone-bottlenecks", "neck-bottlenecks", "all"]
    with torch.device("meta"):
        everything = dynamic_layers(build_detector("dyn_n", 2, backbone="timm/test_byobnet", dynamic={"where": "all"}))
    assert made < everything.keys()
    assert "head.one2one.cls.0.1.conv" in everything
    assert "backbone.trunk.stem.conv" not in everything


def test_a_backbone_without_convolutions_that_can_be_dynamic() -> None:
    with torch.device("meta"):
        detector = build_detector("yolo26_n", 2, backbone="timm/nf_resnet26")  # its convolutions standardize their weights
        assert list(detector.convolution_patterns) == ["neck-bottlenecks", "all"]
        with pytest.raises(ValueError, match=r"'backbone-bottlenecks' names no convolution of Detector"):
            build_detector("dyn_n", 2, backbone="timm/nf_resnet26")


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "timm/tf_mobilenetv3_small_minimal_100"])  # tf_: Conv2dSame
def test_dynamic_and_collapsed_backbones_compute_the_same(backbone: str) -> None:
    detector, images = trained(backbone).double(), torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = detector.backbone(images)
        names = make_dynamic(detector, "backbone", num_experts=3, init="upcycle")
        assert names == list(dynamic_layers(detector))
        assert relative_difference(detector.backbone(images), expected) < 1e-9
        collapsed, _ = collapse(detector, DataLoader(images, batch_size=2, collate_fn=lambda x: {"images": torch.stack(x)}))
        assert not dynamic_layers(collapsed)
        assert relative_difference(collapsed.backbone(images), expected) < 1e-5  # means are float32
        assert relative_difference(detector.deploy().backbone(images), expected) < 1e-9


@pytest.mark.parametrize(
    "backbone", ["timm/test_efficientnet", "timm/test_byobnet", "timm/test_resnet", "parameternet_w050"]
)
def test_deploying_folds_every_normalization(backbone: str) -> None:
    detector, images = trained(backbone).double(), torch.rand(2, 3, 64, 96, dtype=torch.float64)
    deployed = detector.deploy()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in deployed.modules())
    with torch.no_grad():
        assert relative_difference(deployed.backbone(images), detector.backbone(images)) < 1e-9


@pytest.mark.parametrize("convert", ["to SyncBatchNorm", "to SyncBatchNorm and back"])
def test_activations_survive_synchronized_normalization(convert: str) -> None:
    from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm

    detector, images = trained("timm/test_efficientnet"), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = detector.backbone(images)
        detector = TorchSyncBatchNorm().apply(detector)
        if "back" in convert:
            detector = TorchSyncBatchNorm().revert(detector).eval()
        assert relative_difference(detector.backbone(images), expected) > 0.01  # what torch and Lightning do
        restore_activations(detector)
        assert relative_difference(detector.backbone(images), expected) == 0
