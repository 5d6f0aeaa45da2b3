"""DetectorModule with a pretrained backbone: learning rates, frozen parts, checkpoints, license."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from detector import DetectorModule, build_detector, load_detector
from detector.training.module import PRETRAINED_LR_RATIO
from detector.training.optimizer import parameter_groups
from detector.training.parts import find_parts
from detector.weights import WeightsInfo, save_weights
from tests.detector.training.test_fine_tuning import fine_tune, module

BACKBONE = "timm/test_efficientnet"
DYNAMIC = {"dynamic": {"where": ["backbone-pointwise"], "num_experts": 2}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "imagenet.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path, {"license": "MIT"})
    return path


def test_a_run_starts_from_a_file_and_its_checkpoint_needs_no_file(tmp_path: Path, weights: Path) -> None:
    """Frozen stem and norms stay to the bit; a resumed run and a loaded detector have the backbone without the file."""
    settings = {"variant": "yolo26_n", "backbone": BACKBONE, "overrides": DYNAMIC, "optimizer": "adamw"}
    settings |= {"freeze": ["backbone.stem", "backbone.norms"], "image_size": 64}
    start = tmp_path / "start.safetensors"
    start.write_bytes(weights.read_bytes())
    model = module(**settings, backbone_weights=start)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    imagenet = timm.create_model(
        "test_efficientnet", pretrained_cfg_overlay={"file": str(start)}, pretrained=True
    ).state_dict()
    assert torch.equal(before["backbone.trunk.blocks.0.0.bn1.weight"], imagenet["blocks.0.0.bn1.weight"])
    path = fine_tune(tmp_path, model, epochs=1)
    start.unlink()

    ratio = model.hparams.backbone_lr_ratio
    assert ratio == PRETRAINED_LR_RATIO
    resumed = fine_tune(tmp_path, module(**settings, backbone_lr_ratio=ratio), epochs=2, resume=path)
    for file in (path, resumed):
        content = torch.load(file, weights_only=True)
        for part in ("state_dict", "current_model_state"):
            state = {name.removeprefix("model."): value for name, value in content[part].items()}
            same = {name for name in before if torch.equal(before[name], state[name])}
            assert {
                n for n in before if n.startswith(("backbone.trunk.conv_stem", "backbone.trunk.bn1", "backbone.mean"))
            } <= same
            norms = tuple(find_parts(model.model, "backbone.norms"))
            assert {name for name in before if name.rpartition(".")[0] in norms} <= same
            assert "backbone.trunk.blocks.1.0.conv_pwl.weight" not in same
            assert "neck.down.0.norm.running_mean" not in same
        assert content["weights_info"]["license"] == "MIT"
        assert content["hyper_parameters"]["overrides"]["backbone"] == BACKBONE
        rates = {group["name"]: group["base_lr"] for group in content["optimizer_states"][0]["param_groups"]}
        assert rates["backbone.trunk kernels"] == rates["backbone.trunk routers"] == pytest.approx(0.001 * ratio)
        assert rates["kernels"] == 0.001
    predictor = load_detector(resumed)
    assert f"starting from: {BACKBONE} weights of start.safetensors (sha256 " in predictor.info.provenance
    average = torch.load(resumed, weights_only=True)["state_dict"]
    assert all(torch.equal(value, average[f"model.{name}"]) for name, value in predictor.model.state_dict().items())
    again = module(weights=resumed)  # a new run from this detector has its backbone
    assert again.model.backbone.name == BACKBONE
    assert again.hparams.backbone_lr_ratio is None


def test_neck_and_head_from_one_file_and_the_backbone_from_another(tmp_path: Path, weights: Path) -> None:
    trained = build_detector("yolo26_n", 2)
    path = tmp_path / "trained.safetensors"
    save_weights(path, trained.state_dict(), WeightsInfo("yolo26_n", class_names=["red", "green"], license="AGPL-3.0"))
    model = module(weights=path, backbone=BACKBONE, backbone_weights=str(weights))
    assert torch.equal(model.model.neck.down[0].conv.weight, trained.neck.down[0].conv.weight)
    assert model._origin.license == "AGPL-3.0 AND MIT"
    save_weights(path, model.model.state_dict(), WeightsInfo("yolo26_n", {"backbone": BACKBONE}, ["red", "green"]))
    with pytest.raises(ValueError, match=r"trained timm/test_efficientnet, which backbone_weights would replace"):
        module(weights=path, backbone_weights=str(weights))
    assert module(weights=path, variant="dyn_n").model.backbone.name == BACKBONE  # upcycled
    assert module(weights=path, backbone="yolo26").model.backbone.name == "yolo26"


def test_learning_rates_of_backbones() -> None:
    def ratios(**settings: object) -> dict[str, float]:
        return DetectorModule("yolo26_n", ["a"], **settings)._lr_ratios()

    assert ratios() == ratios(backbone=BACKBONE) == ratios(backbone=BACKBONE, backbone_weights="none") == {}
    assert ratios(backbone_lr_ratio=0.5) == {"backbone": 0.5}
    given = {"backbone.trunk": 0.3, "neck": 2.0}
    assert ratios(backbone=BACKBONE, backbone_lr_ratio=0.5, lr_ratios=given) == given
    with pytest.raises(ValueError, match=r"backbone_lr_ratio is 0\.0; expected a factor above 0"):
        ratios(backbone_lr_ratio=0.0)


def test_only_kernels_decay_and_take_muon_steps() -> None:
    """tiny_vit has tables of positions of two dimensions, and linear layers."""
    with torch.device("meta"):
        model = build_detector("dyn_n", 2, backbone="timm/tiny_vit_5m_224")
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    groups = parameter_groups(model, 0.01, 5e-4)
    assert sum(len(group["params"]) for group in groups) == len(parameters)
    group_of = {id(p): group for group in groups for p in group["params"]}
    tables = [p for name, p in parameters.items() if "attention_biases" in name]
    linear = [m.weight for name, m in modules.items() if isinstance(m, nn.Linear) and "router" not in name]
    assert tables
    assert linear
    assert not any(group_of[id(p)]["muon"] or group_of[id(p)]["weight_decay"] for p in tables)
    assert all(group_of[id(p)]["muon"] and group_of[id(p)]["weight_decay"] for p in linear)


def test_parts_of_every_backbone() -> None:
    with torch.device("meta"):
        ours, foreign = build_detector("yolo26_n", 2), build_detector("yolo26_n", 2, backbone="timm/hgnetv2_b0")
    assert find_parts(ours, "backbone.stem") == ["backbone.stem"]
    assert find_parts(foreign, "backbone.stem") == ["backbone.trunk.stem"]
    for model in (ours, foreign):
        norms = find_parts(model, "norms")
        assert norms == [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        assert find_parts(model, "backbone.norms") == [name for name in norms if name.startswith("backbone.")]


def test_a_restrictive_license_is_accepted_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "vendor.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path, {"license": "cc-by-nc-4.0"})
    settings = {"variant": "yolo26_n", "backbone": BACKBONE, "backbone_weights": str(path)}
    with pytest.raises(ValueError, match=r"accept_license cc-by-nc-4\.0"):
        module(**settings)
    accepted = module(**settings, accept_license="cc-by-nc-4.0")
    assert accepted._origin.license == "cc-by-nc-4.0"


def test_the_license_is_logged_before_training(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        module(backbone=BACKBONE, backbone_weights=str(weights), variant="yolo26_n")
    assert "loaded, all of the backbone's" in caplog.text
    assert "license: MIT" in caplog.text
    with caplog.at_level("INFO"):
        module(backbone=BACKBONE, accept_license="mit", variant="yolo26_n")
    assert "accept_license mit is not needed" in caplog.text
    with pytest.raises(ValueError, match=r"backbone is 'yolo26', and overrides has the backbone 'timm/test_efficientnet'"):
        module(backbone="yolo26", overrides={"backbone": BACKBONE})
    with pytest.raises(ValueError, match=r"convnextv2_atto is cc-by-nc-4\.0"):
        module(backbone="timm/convnextv2_atto", backbone_weights="pretrained", variant="yolo26_n")
