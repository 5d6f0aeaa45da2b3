"""Files of pre-training: they start detectors and classifiers, every tensor arrives, and what does not fit is refused."""

import inspect
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from detector import ClassifierModule, DetectorModule, build_detector, load_detector
from detector.__main__ import main
from detector.commands.pretrain_cli import PretrainCLI
from detector.commands.train_cli import TrainCLI
from detector.dynamic import dynamic_layers
from detector.network.classifier import build_classifier
from detector.network.foreign.parameternet import parameternet
from detector.weights import WeightsInfo, load_backbone, read_weights, save_weights, trunk
from detector.weights.classifier import build_classifier_from, load_classifier, read_classifier

TINY = {"width": 0.125, "depth": 0.33}
CLASSES = ["cat", "dog", "owl"]
FACTS = {
    "kind": "classifier",
    "license": None,
    "provenance": "trained with lightning-dyn-detector for 2 epochs from scratch",
    "metrics": {"val/top1": 0.75},
    "data_license": "CC0-1.0",
    "data_provenance": "drawn by hand",
}
EFFICIENT = {"backbone": "timm/test_efficientnet"}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("yolo26_n", TINY),
    "mixture": ("dyn_n", TINY),
    "omni": ("dyn_n", TINY | {"dynamic": {"kind": "omni"}}),
    "residual": ("dyn_n", TINY | {"dynamic": {"kind": "residual"}}),
    "timm": ("yolo26_n", EFFICIENT),
    "timm, mixture": ("dyn_n", EFFICIENT),
    "ParameterNet": ("yolo26_n", {"backbone": "parameternet_w050"}),
}


def module(name: str, **settings: Any) -> ClassifierModule:
    """Return a classifier with values like those of a trained one, also in the statistics of its norms."""
    torch.manual_seed(1)
    variant, overrides = NETWORKS[name]
    model = ClassifierModule(variant, CLASSES, overrides, **settings)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def checkpoint(model: ClassifierModule, path: Path, **facts: Any) -> Path:
    state_dict = {name: value.contiguous() for name, value in model.state_dict().items()}
    content = {"hyper_parameters": dict(model.hparams), "state_dict": state_dict, "weights_info": FACTS | facts}
    torch.save({"pytorch-lightning_version": "2.6", **content}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a plain and of a dynamic classifier of our backbone, and of one of timm."""
    folder = tmp_path_factory.mktemp("files")
    return {name: checkpoint(module(name), folder / f"{name}.ckpt") for name in ("plain", "mixture", "timm")}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_the_trunk_arrives_and_is_counted(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the checkpoint, and from the safetensors that the command writes, under the names of the network's own code."""
    model, (variant, overrides) = module(name), NETWORKS[name]
    expected = model.model.network.state_dict()
    path, written = checkpoint(model, tmp_path / "best.ckpt"), tmp_path / "best.safetensors"
    main(["weights", str(path), str(written)])
    printed = capsys.readouterr().out
    assert "images of the pre-training: drawn by hand, license CC0-1.0" in printed
    assert ("create_model(" in printed) is (name == "timm")
    detector = build_detector(variant, 2, **overrides)
    report = load_backbone(detector, str(written))
    trunk_module = detector if detector.backbone.name == "yolo26" else detector.backbone.trunk
    got = {n: trunk_module.state_dict()[n] for n in model.model.trunk}
    assert all(torch.equal(value, expected[n]) for n, value in got.items())
    assert sorted(report.loaded) == sorted(model.model.trunk)
    assert sorted(report.loaded + report.left_out) == sorted(expected)
    assert (report.upcycled, report.new, report.of_replaced) == ([], [], [])
    left_out = f"{len(report.left_out):>6} left out, of the classifier"
    assert f"{len(got):>6} loaded, all of the backbone's\n{left_out}" in str(report)
    assert "images of its pre-training: drawn by hand, license CC0-1.0" in str(report)
    from_checkpoint, from_written = read_classifier(path), read_classifier(written)
    assert from_checkpoint.statistics == from_written.statistics
    assert from_checkpoint.state_dict.keys() == from_written.state_dict.keys() == expected.keys()
    assert all(torch.equal(from_checkpoint.state_dict[n], value) for n, value in from_written.state_dict.items())
    names = set(load_file(written))
    if name == "ParameterNet":
        assert {"conv_stem.cond_conv.weight", "blocks.9.0.conv.routing.bias"} <= names
        assert not any(".router." in n for n in names)
    else:
        assert names == set(expected)


def test_timm_reads_the_file_of_its_network(tmp_path: Path, files: dict[str, Path]) -> None:
    written = tmp_path / "own.safetensors"
    main(["weights", str(files["timm"]), str(written), "--license", "MIT"])
    expected = module("timm").model.network.state_dict()
    overlay = {"file": str(written), "num_classes": 3}
    for arguments in ({"checkpoint_path": str(written)}, {"pretrained": True, "pretrained_cfg_overlay": overlay}):
        network = timm.create_model("test_efficientnet", num_classes=3, **arguments)
        assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert read_classifier(written).license == "MIT"
    again, x = build_classifier_from(read_classifier(written)), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again(x), module("timm")(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixture", "omni", "residual"])
@pytest.mark.parametrize("name", ["plain", "timm"])
def test_upcycled_and_plain_detectors_agree(files: dict[str, Path], name: str, kind: str) -> None:
    overrides = NETWORKS[name][1]
    plain = build_detector("yolo26_n", 2, **overrides).eval()
    dynamic = build_detector("dyn_n", 2, **overrides, dynamic={"kind": kind}).eval()
    reports = [load_backbone(detector, str(files[name])) for detector in (plain, dynamic)]
    assert sorted(reports[0].loaded) == sorted(reports[1].loaded)
    assert len(reports[1].upcycled) == len(dynamic_layers(dynamic)) > 0
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = [detector.backbone.maps(x) if name == "timm" else detector.backbone(x) for detector in (plain, dynamic)]
    for expected, got in zip(*maps, strict=True):
        assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("file", "variant", "overrides", "message"),
    [
        (
            "mixture",
            "yolo26_n",
            TINY,
            r"dynamic layers where this network is plain.*cannot become plain; give --model\.variant dyn_n --model\.over",
        ),
        ("mixture", "dyn_n", TINY | {"dynamic": {"num_experts": 8}}, r"of another shape.*give --model\.variant dyn_n"),
        ("mixture", "dyn_n", TINY | {"dynamic": {"kind": "residual"}}, r"missing.*or none of model\.variant"),
        ("plain", "yolo26_n", {}, r"of another shape.*yolo26_n --model\.overrides '{\"width\": 0\.125, \"depth"),
        ("plain", "yolo26_n-p6", TINY, r"missing: backbone\.down_p6"),
        (
            "plain",
            "yolo26_n",
            EFFICIENT,
            r"classifier of the backbone yolo26, and .* is timm/test_efficientnet; give .* --model\.backbone yolo26, or",
        ),
        (
            "timm",
            "yolo26_n",
            TINY,
            r"of the backbone timm/test_efficientnet, .* here is yolo26; give .* --model\.backbone timm",
        ),
        ("timm", "yolo26_n", {"backbone": "timm/test_resnet"}, r"backbone timm/test_efficientnet, .* is timm/test_resnet"),
    ],
)
def test_another_network_is_refused(
    files: dict[str, Path], file: str, variant: str, overrides: dict[str, Any], message: str
) -> None:
    detector = build_detector(variant, 2, **overrides)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_backbone(detector, str(files[file]))
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("name", ["mixture", "timm", "replaced"])
def test_a_detector_without_a_variant_has_the_network_of_the_file(tmp_path: Path, name: str) -> None:
    """In Python and on the command line. What is given wins, and the file is refused if it does not fit then."""
    replaced = TINY | {"replace": [{"where": "sppf", "layer": "torch.nn.Identity"}]}
    dynamic = TINY | {"dynamic": {"num_experts": 2, "temperature": 30.0}}
    networks = {"mixture": ("dyn_n", dynamic), "timm": NETWORKS["timm"], "replaced": ("yolo26_n", replaced)}
    variant, overrides = networks[name]
    classifier = ClassifierModule(variant, CLASSES, overrides)
    path, expected = checkpoint(classifier, tmp_path / "best.ckpt"), dict(classifier.hparams.overrides)
    if name == "mixture":
        expected["dynamic"] = expected["dynamic"] | {"temperature": 1.0}  # that of the pre-training has ended
        with pytest.raises(ValueError, match="of another shape"):
            DetectorModule(class_names=["a"], backbone_weights=path, overrides={"dynamic": {"num_experts": 4}})
    model = DetectorModule(class_names=["a"], backbone_weights=path)
    assert (model.hparams.variant, model.hparams.overrides) == (variant, expected)

    settings = dict.fromkeys(inspect.signature(DetectorModule).parameters) | {"backbone_weights": str(path)}
    cli = SimpleNamespace(config={"model": settings, "ckpt_path": None, "config": []})
    TrainCLI._resolve_model_settings(cli)
    names = ("variant", "overrides", "backbone", "replace")
    given = DetectorModule(class_names=["a"], backbone_weights=path, **{name: settings[name] for name in names})
    assert (given.hparams.variant, given.hparams.overrides) == (variant, expected)


def test_the_file_of_another_backbone_is_refused_before_the_data_are_read(files: dict[str, Path]) -> None:
    for cli, module_class, option in (
        (TrainCLI, DetectorModule, "backbone_weights"),
        (PretrainCLI, ClassifierModule, "weights"),
    ):
        for name in ("mixture", "plain"):
            settings = dict.fromkeys(inspect.signature(module_class).parameters)
            settings |= {"variant": "yolo26_n", "overrides": TINY, option: str(files[name]), "drop_path": 0.0}
            expected = pytest.raises(ValueError, match="cannot become plain") if name == "mixture" else nullcontext()
            with expected:
                cli._check_network_settings(SimpleNamespace(config={"model": settings}))


def test_the_temperature_of_an_early_checkpoint_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A training that starts from it has another temperature, at which its experts compute something else."""
    path = checkpoint(module("mixture"), tmp_path / "early.ckpt", temperature=12.5)
    note = "at a temperature of 12.5; this one starts at model.overrides.dynamic.temperature, by default 1: give 12.5"
    assert note in str(load_classifier(build_classifier("dyn_n", 3, **TINY), path, CLASSES))
    assert note in str(load_backbone(build_detector("dyn_n", 1, **TINY), str(path)))
    detector = DetectorModule("dyn_n", ["a"], overrides=TINY)
    info = WeightsInfo("dyn_n", detector.hparams.overrides, ["a"], temperature=12.5)
    save_weights(tmp_path / "early.safetensors", detector.model.state_dict(), info)
    with caplog.at_level("INFO"):
        DetectorModule(class_names=["a"], weights=tmp_path / "early.safetensors")
    assert note in caplog.text


def test_a_detector_and_a_classifier_are_not_taken_for_each_other(tmp_path: Path, files: dict[str, Path]) -> None:
    main(["weights", str(files["plain"]), str(tmp_path / "c.safetensors")])
    for path in (files["plain"], tmp_path / "c.safetensors"):
        name = re.escape(str(path))
        message = rf"{name}: has a classifier of pretrain\.py.*train\.py --model\.backbone_weights {name}"
        for read in (read_weights, load_detector, lambda p: DetectorModule(class_names=["a"], weights=p)):
            with pytest.raises(ValueError, match=message):
                read(path)
    detector = DetectorModule("yolo26_n", ["a"], overrides=TINY)
    save_weights(tmp_path / "d.safetensors", detector.model.state_dict(), WeightsInfo("yolo26_n", TINY, ["a"]))
    settings = {"hyper_parameters": dict(detector.hparams), "state_dict": detector.state_dict()}
    torch.save({"pytorch-lightning_version": "2.6", **settings}, tmp_path / "d.ckpt")
    for path in (tmp_path / "d.safetensors", tmp_path / "d.ckpt"):
        with pytest.raises(ValueError, match=r"of a detector; start from it with train\.py --model\.weights"):
            ClassifierModule(class_names=["a"], weights=path)
    with pytest.raises(ValueError, match="checkpoint of a classifier, not of a detector"):
        DetectorModule.on_load_checkpoint(detector, {"weights_info": FACTS})
    with pytest.raises(ValueError, match="checkpoint of a detector, not of a classifier"):
        ClassifierModule.load_from_checkpoint(tmp_path / "d.ckpt", overrides=TINY, weights_only=True)
    with pytest.raises(ValueError, match=r"no weights of yolo26 were ever published"):
        load_backbone(detector.model, "pretrained")


def test_licenses_and_provenance_travel_into_the_detector_and_on(tmp_path: Path, files: dict[str, Path]) -> None:
    path = checkpoint(module("plain"), tmp_path / "c.ckpt", license="apache-2.0 AND MIT")
    with pytest.raises(ValueError, match=r"license of the weights of yolo26 is apache-2\.0 AND MIT"):
        DetectorModule("yolo26_n", ["a"], overrides=TINY, backbone_weights=path)
    first = DetectorModule("yolo26_n", ["a"], overrides=TINY, backbone_weights=path, accept_license="apache-2.0 AND MIT")
    facts = first._origin.to_dict()
    of_images = {"data_license": "CC0-1.0", "data_provenance": "drawn by hand"}
    assert facts == {"license": "apache-2.0 AND MIT", "started_from": facts["started_from"], **of_images}
    assert re.fullmatch(rf"yolo26_n weights of c\.ckpt \(sha256 \w{{64}}\), {FACTS['provenance']}", facts["started_from"])
    assert first.hparams.backbone_lr_ratio == 0.2  # as of every pretrained backbone
    settings = {"hyper_parameters": dict(first.hparams), "state_dict": first.state_dict(), "weights_info": facts}
    torch.save({"pytorch-lightning_version": "2.6", **settings}, tmp_path / "d.ckpt")
    main(["weights", str(tmp_path / "d.ckpt"), str(tmp_path / "d.safetensors")])
    for file in ("d.ckpt", "d.safetensors"):
        info = read_weights(tmp_path / file).info
        assert info.images_of_pretraining == "drawn by hand, license CC0-1.0"
        assert DetectorModule(class_names=["a"], weights=tmp_path / file)._origin.data_license == "CC0-1.0"
    again = ClassifierModule(
        class_names=CLASSES, weights=files["plain"], data_license="CC-BY-4.0", data_provenance="drawn by hand"
    )
    assert again.hparams.variant == "yolo26_n"  # of the file
    saved = again.saved_origin
    assert (saved.data_license, saved.data_provenance) == ("CC0-1.0 AND CC-BY-4.0", "drawn by hand")


def test_a_classifier_starts_from_files_of_every_kind(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last layer is left out for other classes; plain kernels become experts; all tensors are counted."""
    monkeypatch.setattr(trunk, "SEARCH_SECONDS", 0)
    same = ClassifierModule("dyn_n", CLASSES, TINY, weights=files["plain"])
    report = load_classifier(same.model, files["plain"], CLASSES)
    assert (len(report.upcycled), report.left_out, report.new, report.other_classes) == (12, [], [], "")
    for path in (files["timm"], tmp_path / "theirs.safetensors"):
        if path != files["timm"]:
            save_file(read_classifier(files["timm"]).state_dict, path, {"license": "MIT"})
        other = build_classifier("yolo26_n", 5, **EFFICIENT)
        report = load_classifier(other, path, list("abcde"))
        assert set(report.left_out) == set(report.new) == {"classifier.weight", "classifier.bias"}
        assert len(report.loaded) == len(other.network.state_dict()) - 2
    assert "the last layer starts anew: in the file it is not for 5 classes" in str(report)
    assert report.license == "MIT"
    renamed = load_classifier(build_classifier("yolo26_n", 3, **EFFICIENT), files["timm"], ["dog", "cat", "owl"])
    assert renamed.other_classes == "the file is for the 3 classes cat, dog, owl"
    with pytest.raises(ValueError, match="cannot become plain"):
        ClassifierModule("yolo26_n", CLASSES, TINY, weights=files["mixture"])


def test_the_official_file_of_a_parameternet_starts_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(2)
    source = parameternet("parameternet_w050_plain", 9).eval()  # as a GhostNet: its kernels become experts
    torch.save(source.state_dict(), tmp_path / "official.pt")
    model = ClassifierModule(
        "yolo26_n", list("abcdefghi"), backbone="parameternet_w050", weights=tmp_path / "official.pt"
    ).eval()
    x = torch.rand(1, 3, 64, 64)
    expected = source((x - model.model.mean) / model.model.std)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert model._origin.license == "unknown"
