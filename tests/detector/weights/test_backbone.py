"""Pretrained weights of a backbone: every tensor arrives, other networks and licenses are refused."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from detector import build_detector
from detector.dynamic import DynamicConfig, dynamic_layers
from detector.network.foreign.parameternet import parameternet
from detector.weights import WeightsInfo, load_backbone, load_into, read_weights, save_weights, trunk
from detector.weights import backbone_files as files

NAME = "timm/test_efficientnet"


def classifier(name: str = "test_efficientnet", num_classes: int = 7) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(name, num_classes=num_classes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(classifier().state_dict(), path, {"license": "MIT", "mean": "0.5", "std": "[0.1, 0.2, 0.3]"})
    return path


@pytest.mark.parametrize(
    "dynamic", [None, *({"kind": kind, "where": "backbone-pointwise"} for kind in ("mixture", "omni", "residual"))], ids=str
)
def test_every_tensor_of_a_local_file_arrives(weights: Path, dynamic: dict[str, str] | None) -> None:
    """Dynamic layers of every kind compute what the plain ones did."""
    detector = build_detector("yolo26_n", 2, backbone=NAME, dynamic=dynamic).eval()
    report = load_backbone(detector, str(weights))
    trunk, whole, layers = (
        detector.backbone.trunk.state_dict(),
        classifier().eval(),
        dynamic_layers(detector.backbone.trunk),
    )
    expected = whole.state_dict()
    for name, value in trunk.items():
        module = name.rpartition(".")[0]
        if module not in layers and ".router" not in name:
            assert torch.equal(value, expected[name]), name
    assert sorted(report.loaded + report.left_out) == sorted(expected)
    assert set(report.left_out) == {name for name in expected if name.startswith(("conv_head", "bn2", "classifier"))}
    assert report.upcycled == list(layers)
    assert detector.backbone.mean.flatten().tolist() == [0.5] * 3
    torch.testing.assert_close(detector.backbone.std.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        *_, map_p5 = whole.forward_intermediates((x - 0.5) / detector.backbone.std, intermediates_only=True)
        *_, got = detector.backbone.maps((x - detector.backbone.mean) / detector.backbone.std)
    assert (got - map_p5).abs().max() < 1e-5 * map_p5.abs().mean()
    text = str(report)
    assert f"{len(expected):} tensors" in text
    assert f"{len(trunk) if dynamic is None else len(report.loaded)} loaded, all of the backbone's" in text
    assert "license: MIT" in text


def test_weights_beside_blocks_of_the_user(tmp_path: Path) -> None:
    """What a block goes on to use is loaded under its new name; what is new in it, and what is gone, is counted."""
    blocks = "tests.detector.network.replace.blocks"
    plain = build_detector("yolo26_n", 2, backbone=NAME).backbone.trunk
    first, second = [n for n, m in plain.named_modules() if type(m) is nn.Conv2d and m.groups == 1 and n.count(".") > 1][3:5]
    entries = [
        {"where": f"backbone.trunk.{first}", "layer": f"{blocks}.SqueezeExcitation"},
        {"where": f"backbone.trunk.{second}", "layer": f"{blocks}.Fresh"},
    ]
    save_file(plain.state_dict(), tmp_path / "w.safetensors", {"license": "MIT"})
    detector = build_detector("yolo26_n", 2, backbone=NAME, replace=entries)
    report = load_backbone(detector, str(tmp_path / "w.safetensors"))
    trunk = detector.backbone.trunk
    assert torch.equal(trunk.get_submodule(first).conv.weight, plain.get_submodule(first).weight)
    squeezed = [f"{first}.{layer}.{kind}" for layer in ("squeeze", "excite") for kind in ("weight", "bias")]
    assert set(report.new) == {*squeezed, *[f"{second}.{n}" for n in trunk.get_submodule(second).state_dict()]}
    assert report.of_replaced == [f"{second}.weight"]
    assert report.left_out == []
    assert len(report.loaded) + len(report.new) == len(trunk.state_dict())
    kept = [n for n in plain.state_dict() if not n.startswith((f"{first}.", f"{second}."))]
    assert all(torch.equal(trunk.state_dict()[n], plain.state_dict()[n]) for n in kept)
    assert f"{len(report.new):>6} of new parts, as initialized: {report.new[0]}" in str(report)
    assert f"     1 left out, of modules that were replaced: {second}.weight" in str(report)


def test_checkpoints_of_other_programs(tmp_path: Path) -> None:
    state = classifier("test_resnet").state_dict()
    path = tmp_path / "theirs.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    detector = build_detector("yolo26_n", 2, backbone="timm/test_resnet")
    report = load_backbone(detector, str(path))
    assert all(torch.equal(value, state[name]) for name, value in detector.backbone.trunk.state_dict().items())
    assert report.license == "apache-2.0"  # all that timm has of this network


def test_another_network_is_refused_by_its_name(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = build_detector("yolo26_n", 2, backbone="timm/test_resnet")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    save_file(classifier().state_dict(), tmp_path / "test_efficientnet.safetensors")
    with pytest.raises(ValueError, match=r"not the weights of timm/test_resnet \(.*those of timm/test_efficientnet$"):
        load_backbone(detector, str(tmp_path / "test_efficientnet.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    monkeypatch.setattr(trunk, "SEARCH_SECONDS", 0)
    larger = classifier("test_resnet").state_dict() | {"layer1.1.conv1.weight": torch.zeros(8, 8, 3, 3)}
    save_file(larger, tmp_path / "larger.safetensors")
    with pytest.raises(ValueError, match=r"1 too many: layer1\.1\.conv1\.weight"):
        load_backbone(detector, str(tmp_path / "larger.safetensors"))
    save_weights(tmp_path / "detector.safetensors", detector.state_dict(), WeightsInfo("yolo26_n"))
    with pytest.raises(ValueError, match=r"weights of a detector; start from it with train\.py --model\.weights"):
        load_backbone(detector, str(tmp_path / "detector.safetensors"))
    torch.save({"pytorch-lightning_version": "2"}, tmp_path / "best.ckpt")
    with pytest.raises(
        ValueError, match=r"best\.ckpt: is the checkpoint of a detector; start from it with train\.py --model\.weights"
    ):
        load_backbone(detector, str(tmp_path / "best.ckpt"))
    with pytest.raises(ValueError, match=r"not the weights of our own backbone, yolo26; give a file of pretrain\.py"):
        load_backbone(build_detector("yolo26_n", 2), str(weights))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mean", "[123.7, 116.3, 103.5]", "in 0..1"),
        ("mean", "0.5, 0.5", "in 0..1"),
        ("std", "0", "above 0"),
        ("std", "58", "above 0"),
        ("std", "nan", "above 0"),
    ],
)
def test_input_statistics_of_a_file_must_be_those_of_images_in_0_to_1(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    save_file({"conv_stem.weight": torch.zeros(1)}, tmp_path / "a.safetensors", {name: text})
    with pytest.raises(ValueError, match=rf"{re.escape(text)}' as {name}; expected one number, or three, {expected}"):
        files.read_backbone_file(tmp_path / "a.safetensors")


def test_the_tag_in_the_name_of_a_file_must_be_that_of_the_backbone(tmp_path: Path) -> None:
    """Each tag has its own license and input statistics."""
    path = tmp_path / "mobilenetv3_large_100.miil_in21k.safetensors"
    save_file({"conv_stem.weight": torch.zeros(1)}, path)
    for name in ("timm/mobilenetv3_large_100", "timm/mobilenetv3_large_100.ra_in1k"):
        detector = SimpleNamespace(backbone=SimpleNamespace(name=name))
        with pytest.raises(ValueError, match=r"give --model\.backbone timm/mobilenetv3_large_100\.miil_in21k, or rename"):
            load_backbone(detector, str(path))


@pytest.mark.parametrize("experts", [None, 4])
def test_parameternet_takes_official_names_and_plain_kernels(
    tmp_path: Path, experts: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "SEARCH_SECONDS", 0)
    torch.manual_seed(2)
    name = "parameternet_w050" + ("" if experts else "_plain")
    source = parameternet(name, 9, experts and DynamicConfig(num_experts=experts)).eval()
    state = source.state_dict()
    official = {
        key.replace(".router.", ".routing.") if ".router." in key
        else key.replace(".weight", ".cond_conv.weight") if key.removesuffix(".weight") in dynamic_layers(source)
        else key: value
        for key, value in state.items()
    }  # fmt: skip
    torch.save(official, tmp_path / "official.pt")
    dynamic = None if experts else {"kind": "residual", "num_experts": 1, "gates": ["input"]}
    detector = build_detector("yolo26_n", 2, backbone="parameternet_w050", dynamic=dynamic).eval()
    report = load_backbone(detector, str(tmp_path / "official.pt"))
    assert len(report.upcycled) == (0 if experts else 75)
    assert report.license == files.UNKNOWN
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = source.blocks[:9](source.act1(source.bn1(source.conv_stem(x))))
        got = detector.backbone.trunk(x)[-1]
    assert (got - expected).abs().max() < 1e-5 * expected.abs().mean()
    del official["blocks.4.0.ghost1.cheap_operation.1.bias"]
    torch.save(official, tmp_path / "official.pt")
    with pytest.raises(ValueError, match=r"1 missing: blocks\.4\.0\.ghost1\.cheap_operation\.1\.bias"):
        load_backbone(detector, str(tmp_path / "official.pt"))


APACHE, MIXED = {"a": "apache-2.0"}, {"a": "apache-2.0", "b": "cc-by-nc-4.0"}


@pytest.mark.parametrize(
    ("license", "possible", "accepted", "is_local", "expected"),
    [
        ("apache-2.0", {}, None, False, "apache-2.0"),
        ("BSD-3-Clause", {}, None, False, "BSD-3-Clause"),
        ("cc-by-nc-4.0", {}, None, False, r"is cc-by-nc-4\.0, which.*--model\.accept_license cc-by-nc-4\.0"),
        ("cc-by-nc-4.0", {}, "CC-BY-NC-4.0", False, "cc-by-nc-4.0"),
        ("fastvit-license", {}, "mit", False, "accept_license is 'mit', but .* fastvit-license"),
        (None, {}, None, False, "is unknown, which"),
        (None, {}, "unknown", False, "unknown"),
        (None, APACHE, None, True, "apache-2.0"),
        (None, MIXED, None, True, r"not known, and timm has it under apache-2\.0, cc-by-nc-4\.0: name the tag \(a, b\)"),
        (None, MIXED, "mit", True, "mit"),
        (None, {}, None, True, "unknown"),
        (None, {}, "mit", True, "mit"),
    ],
)
def test_licenses(license: str | None, possible: dict, accepted: str | None, is_local: bool, expected: str) -> None:
    if " " not in expected and "\\" not in expected:
        assert files.resolve_license("it", license, possible, accepted, is_local) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            files.resolve_license("it", license, possible, accepted, is_local)


def test_a_license_is_checked_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_from_hub", lambda *_: pytest.fail("downloaded"))
    detector = SimpleNamespace(backbone=SimpleNamespace(name="timm/convnextv2_atto"))
    with pytest.raises(ValueError, match=r"license of the weights of timm/convnextv2_atto is cc-by-nc-4\.0"):
        load_backbone(detector, "pretrained")


def test_without_a_network_the_error_names_the_file_to_fetch(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    def offline(*_: object) -> None:
        raise OSError("Name or service not known")

    detector = build_detector("yolo26_n", 2, backbone="timm/test_efficientnet.r160_in1k")
    monkeypatch.setattr(files, "_from_hub", offline)
    name = r"test_efficientnet\.r160_in1k"
    with pytest.raises(ValueError, match=rf"(?s)https://huggingface\.co/timm/{name}/resolve/main/model\.safetensors\n"
                       rf"save it as {name}\.safetensors.*--model\.backbone_weights {name}\.safetensors"):  # fmt: skip
        load_backbone(detector, "pretrained")
    monkeypatch.setattr(files, "_from_hub", lambda *_: weights)
    assert load_backbone(detector, "pretrained").license == "apache-2.0"


def test_neck_and_head_of_a_detector_with_another_backbone_load(tmp_path: Path) -> None:
    trained = build_detector("yolo26_n", 2)
    path = tmp_path / "trained.safetensors"
    save_weights(path, trained.state_dict(), WeightsInfo("yolo26_n", class_names=["a", "b"]))
    detector = build_detector("yolo26_n", 2, backbone=NAME)
    report = load_into(detector, read_weights(path), ["a", "b"])
    assert report.complete
    same = ("neck.", "head.", "backbone.sppf.", "backbone.attention.")
    assert set(report.loaded) == {name for name in trained.state_dict() if name.startswith(same)}
    assert {name.split(".")[1] for name in report.other_backbone} >= {"trunk", "project", "stem", "stage_p5"}
    assert f"{len(report.other_backbone)} of two different backbones, not loaded" in str(report)


def test_a_weights_file_names_its_backbone_and_loads_without_pretrained_weights(tmp_path: Path) -> None:
    from detector import load_detector

    detector = build_detector("yolo26_n", 2, backbone=NAME)
    path = tmp_path / "detector.safetensors"
    save_weights(path, detector.state_dict(), WeightsInfo("yolo26_n", {"backbone": NAME}, ["a", "b"]))
    loaded = load_detector(path)
    assert loaded.info.overrides == {"backbone": NAME}
    assert all(torch.equal(value, detector.state_dict()[name]) for name, value in loaded.model.state_dict().items())
    save_file(detector.state_dict(), path)
    with pytest.raises(ValueError, match="has a backbone that is not ours, but does not name it"):
        read_weights(path)


def test_names_of_the_networks_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm converts the names of ConvNeXt's own code; linear layers become 1x1 convolutions."""
    monkeypatch.setattr(trunk, "SEARCH_SECONDS", 0)
    state = classifier("test_convnext", 1000).state_dict()
    theirs = {}
    for name, value in state.items():
        name = re.sub(
            r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name.replace("stem.", "downsample_layers.0.")
        )
        name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        name = name.replace("head.fc.", "head.").replace("head.norm.", "norm.")
        theirs[name] = value.flatten(1) if "pwconv" in name and value.ndim == 4 else value
    assert set(theirs) - set(state)
    path = tmp_path / "theirs.pt"
    torch.save({"model": theirs}, path)
    detector = build_detector("yolo26_n", 2, backbone="timm/test_convnext")
    report = load_backbone(detector, str(path), accept_license="apache-2.0")
    assert all(torch.equal(value, state[name]) for name, value in detector.backbone.trunk.state_dict().items())
    assert f"{len(report.loaded)} loaded, all of the backbone's" in str(report)
    theirs.pop("stages.0.0.dwconv.bias")
    torch.save({"model": theirs}, path)
    with pytest.raises(ValueError, match=r"1 missing: stages\.0\.blocks\.0\.conv_dw\.bias"):
        load_backbone(detector, str(path), accept_license="apache-2.0")
