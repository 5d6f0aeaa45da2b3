"""Every setting of DetectorModule reaches what it sets, and nothing else."""

import hashlib
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor

from detector import DetectorModule, build_detector
from detector.arguments import Auto
from detector.batch import Batch
from detector.network.boxes import anchor_points
from detector.network.head import RawOutput
from detector.training.setting_checks import UPPER_LIMITS
from detector.weights import WeightsInfo, save_weights
from detector.weights.infer import num_classes
from tests.detector.training.by_hand import learning_rate, warmed_up

TINY = {"width": 0.125, "depth": 0.33}
BASE = {"variant": "yolo26_n", "overrides": TINY, "class_names": ["red", "green"], "nominal_batch": 4}
EPOCHS, BATCHES, BATCH_SIZE = 10, 4, 2

# For each setting another value than in BASE or by default, and what differs then, besides learning rates and momentum.
# "WEIGHTS" is a file of BASE's network whose first kernel is 7, under the license CC-BY-4.0.
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "variant": ("yolo26_n-p2", {"strides": (4, 8, 16, 32)}),
    "class_names": (["red", "green", "blue"], {"classes": 3, "category_ids": [0, 1, 2]}),
    "category_ids": ([7, 9], {"category_ids": [7, 9]}),
    "overrides": ({"width": 0.25, "depth": 0.33}, {"stem channels": 16}),
    "weights": ("WEIGHTS", {"stem value": 7.0, "license": "CC-BY-4.0"}),
    "image_size": ([64, 96], {"image size": [64, 96]}),
    "freeze": (["backbone.stem"], {"without gradient": {"backbone.stem"}, "in evaluation mode": {"backbone.stem"}}),
    "optimizer": ("adamw", {"optimizer": "AdamW", "has Muon steps": False}),
    "lr": (0.02, {}),
    "final_lr_ratio": (0.5, {}),
    "lr_decay": ("cosine", {}),
    "class_lr_ratio": (5.0, {}),
    "lr_ratios": ({"neck": 0.5}, {}),
    "momentum": (0.95, {}),
    "weight_decay": (0.002, {"decay": 0.002}),
    "warmup_epochs": (1.0, {}),
    "warmup_momentum": (0.5, {}),
    "warmup_bias_lr": (0.05, {}),
    "nominal_batch": (8, {"batches of a step": 4}),
    "clip_norm": (2.0, {"gradient norm": 2.0}),
    "box_gain": (15.0, {"box": 15.0}),
    "class_gain": (2.0, {"cls": 2.0}),
    "l1_gain": (6.0, {"l1": 6.0}),
    "class_weights": ({"green": 3.0}, {"class weights": (1.0, 3.0)}),
    "channels_last": (False, {"layout of kernels": False, "layout of images": False}),
    "compile": (True, {"compiled": True}),
    "sixteen_bit_range": ([0, 4095], {"16-bit range": [0, 4095]}),
}
# Settings of the backbone, and the test in test_backbones.py that shows their effect.
BACKBONE_TESTS = {
    "backbone": "test_a_run_starts_from_a_file_and_its_checkpoint_needs_no_file",
    "backbone_weights": "test_a_run_starts_from_a_file_and_its_checkpoint_needs_no_file",
    "backbone_lr_ratio": "test_learning_rates_of_backbones",
    "accept_license": "test_a_restrictive_license_is_accepted_by_its_name",
}
# Settings of replaced and new parts, and the test here that shows their effect.
PARTS_TESTS = dict.fromkeys(
    ("replace", "block_files", "new_parts"), "test_blocks_and_new_parts_reach_the_network_and_the_checkpoint"
)
# Defaults that depend on the optimizer, given values in their place, and 0, which is a value, too.
OTHER_VALUES = [
    {"optimizer": "sgd"},
    {"optimizer": "adamw", "lr": 0.02, "momentum": 0.95},
    {"optimizer": "adamw", "warmup_bias_lr": 0.05},
    {"lr": 0.0},
    {"warmup_bias_lr": 0.0},
]


def test_every_setting_is_tested() -> None:
    """A new setting needs a line in SETTINGS, which shows that it reaches what it sets."""
    assert [*SETTINGS, *BACKBONE_TESTS, *PARTS_TESTS] == list(inspect.signature(DetectorModule).parameters)
    for file, names in ((Path(__file__).with_name("test_backbones.py"), BACKBONE_TESTS), (Path(__file__), PARTS_TESTS)):
        assert all(f"def {test}(" in file.read_text() for test in names.values())


def module(settings: dict[str, Any], **trainer_settings: Any) -> DetectorModule:
    """Build a module in the state of a training of EPOCHS epochs with BATCHES batches of BATCH_SIZE images."""
    torch.manual_seed(0)
    model = DetectorModule(**BASE | settings)
    trainer = Mock(
        world_size=1, num_nodes=1, accumulate_grad_batches=1, max_epochs=EPOCHS, max_steps=-1, num_training_batches=BATCHES
    )
    trainer.configure_mock(
        gradient_clip_val=None, gradient_clip_algorithm=None, precision_plugin=Precision(), current_epoch=0
    )
    trainer.configure_mock(**trainer_settings)
    trainer.train_dataloader.batch_size = BATCH_SIZE
    model._trainer = trainer
    trainer.optimizers = [model.configure_optimizers()]
    model.model.compile = Mock()
    model.on_fit_start()
    model.on_train_start()
    return model


def rates(model: DetectorModule) -> dict[str, list[float]]:
    """Return learning rates of a kernel, a class kernel, a kernel of the neck and a bias, and the momentum, at TIMES."""
    values: dict[str, list[float]] = {name: [] for name in ("kernel", "class", "neck", "bias", "momentum")}
    (optimizer,) = model.trainer.optimizers
    network = model.model
    params = {
        "kernel": network.backbone.down_p2.conv.weight,
        "class": network.head.one2one.cls[0][4].weight,
        "neck": network.neck.down[0].conv.weight,
        "bias": network.backbone.down_p2.norm.bias,
    }
    for epoch, batch in TIMES:
        model.trainer.current_epoch = epoch
        model.on_train_batch_start({}, batch)
        group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for name, p in params.items():
            values[name].append(group_of[id(p)]["lr"])
        first = optimizer.param_groups[0]
        values["momentum"].append(first["betas"][0] if "betas" in first else first["momentum"])
    return values


TIMES = [(0, 0), (1, 2), (9, 3)]  # epoch and batch: the start, half way through the warm-up, the end


def rates_by_hand(settings: dict[str, Any]) -> dict[str, list[float]]:
    optimizer = settings.get("optimizer", "musgd")
    lr = settings.get("lr", 0.001 if optimizer == "adamw" else 0.01)
    bias_start = settings.get("warmup_bias_lr", 0.0 if optimizer == "adamw" else 0.1)
    decay = {name: settings[name] for name in ("final_lr_ratio", "lr_decay", "warmup_epochs") if name in settings}
    warmup = {"epochs": EPOCHS, "warmup_epochs": settings.get("warmup_epochs", 3.0)}
    starts = {
        "kernel": (lr, 0.0),
        "class": (lr * settings.get("class_lr_ratio", 3.0), 0.0),
        "neck": (lr * settings.get("lr_ratios", {}).get("neck", 1.0), 0.0),
        "bias": (lr, bias_start),
    }
    values = {}
    for name, (rate, start) in starts.items():
        times = [(epoch, epoch + batch / BATCHES) for epoch, batch in TIMES]
        values[name] = [learning_rate(epoch, done, EPOCHS, rate, start=start, **decay) for epoch, done in times]
    momenta = settings.get("warmup_momentum", 0.8), settings.get("momentum", 0.9)
    values["momentum"] = [warmed_up(*momenta, epoch + batch / BATCHES, **warmup) for epoch, batch in TIMES]
    return values


def outputs_and_batch(images: int = 1) -> tuple[RawOutput, Batch]:
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32], like=torch.zeros(1))
    boxes, scores = torch.full((1, 4, 84), 1.7), torch.linspace(-2, 2, 2 * 84).view(1, 2, 84)
    branch = {"boxes": boxes.repeat(images, 1, 1).requires_grad_(), "scores": scores.repeat(images, 1, 1).requires_grad_()}
    outputs: RawOutput = {"one2one": branch, "one2many": branch, "points": points, "strides": strides}
    target = {"boxes": torch.tensor([[9.0, 10.0, 40.0, 37.0]]), "labels": torch.tensor([1])}
    return outputs, {"images": torch.zeros(images, 3, 64, 64), "targets": [target] * images}


def losses(model: DetectorModule) -> dict[str, float]:
    """Return the terms of the one-to-one branch for fixed outputs, divided by their values without gains."""
    outputs, batch = outputs_and_batch()
    terms = model._losses(outputs, batch)
    unscaled = type(model.loss)(1.0, 1.0, 1.0, model.loss.class_weights)(outputs, batch["targets"], (64, 64), 0.5)
    return {name: (terms[f"one2one/{name}"] / unscaled[f"one2one/{name}"]).item() for name in ("box", "cls", "l1")}


def gradient_norm(model: DetectorModule) -> float:
    """Return the norm of the gradients after clipping; before, it is far above any limit."""
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.configure_gradient_clipping(model.trainer.optimizers[0])
    return torch.stack([p.grad.norm() for p in model.parameters() if p.requires_grad]).norm().item()


def effects(model: DetectorModule) -> dict[str, Any]:
    """Return what the settings have set, besides learning rates and momentum."""
    network, (optimizer,) = model.model, model.trainer.optimizers
    stem: Tensor = network.backbone.stem.conv.weight
    parts = {name: part for name, part in network.named_modules() if name.count(".") == 1}
    layout = {"memory_format": torch.channels_last}
    return {
        "strides": tuple(network.strides),
        "classes": num_classes(network.state_dict()),
        "category_ids": model.category_ids,
        "stem channels": len(stem),
        "stem value": 7.0 if (stem == 7).all() else None,
        "license": model._origin.license,
        "image size": model.hparams.image_size,
        "16-bit range": model.hparams.sixteen_bit_range,
        "without gradient": {name for name, part in parts.items() if not all(p.requires_grad for p in part.parameters())},
        "in evaluation mode": {name for name, part in parts.items() if not all(m.training for m in part.modules())},
        "optimizer": type(optimizer).__name__,
        "has Muon steps": any(group["muon"] for group in optimizer.param_groups),
        "decay": max(group["weight_decay"] for group in optimizer.param_groups),
        "batches of a step": model.trainer.accumulate_grad_batches,
        "gradient norm": gradient_norm(model),
        "layout of kernels": stem.is_contiguous(**layout),
        "layout of images": model._prepare(torch.rand(2, 3, 64, 64)).is_contiguous(**layout),
        "compiled": network.compile.called,
        "class weights": model.loss.class_weights,
        **losses(model),
    }


EXPECTED = {
    "strides": (8, 16, 32),
    "classes": 2,
    "category_ids": [0, 1],
    "stem channels": 8,
    "stem value": None,
    "license": None,
    "image size": None,
    "16-bit range": None,
    "without gradient": set(),
    "in evaluation mode": set(),
    "optimizer": "MuSGD",
    "has Muon steps": True,
    "decay": 5e-4,
    "batches of a step": 2,
    "gradient norm": 10.0,
    "layout of kernels": True,
    "layout of images": True,
    "compiled": False,
    "class weights": None,
    "box": 7.5,
    "cls": 0.5,
    "l1": 1.5,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = build_detector("yolo26_n", 2, **TINY)
    network.backbone.stem.conv.weight.data.fill_(7.0)
    info = WeightsInfo("yolo26_n", TINY, BASE["class_names"], license="CC-BY-4.0")
    save_weights(path := tmp_path_factory.mktemp("weights") / "w.safetensors", network.state_dict(), info)
    return path


@pytest.mark.parametrize("settings", [{}, *({name: value} for name, (value, _) in SETTINGS.items()), *OTHER_VALUES], ids=str)
def test_a_setting_reaches_what_it_sets_and_nothing_else(settings: dict[str, Any], weights: Path) -> None:
    if "weights" in settings:
        settings = {"weights": weights}
    model = module(settings)
    for name in settings.keys() - {"weights"}:
        assert model.hparams[name] == settings[name]  # checkpoints have it
    differences = {key: value for name in settings for key, value in SETTINGS[name][1].items()}
    if settings.get("optimizer") == "sgd":
        differences["optimizer"] = "SGD"
    assert rates(model) == {name: pytest.approx(values) for name, values in rates_by_hand(settings).items()}
    expected = EXPECTED | differences
    for name, value in effects(model).items():
        assert value == (pytest.approx(expected[name], rel=1e-4) if isinstance(value, float) else expected[name]), name


def test_blocks_and_new_parts_reach_the_network_and_the_checkpoint(weights: Path, tmp_path: Path) -> None:
    """The block is in a file where Python does not look: ``block_files`` has its place."""
    code = "from torch import nn\nclass Block(nn.Identity): pass\n"
    (file := tmp_path / "block_of_settings.py").write_text(code)
    facts = {"block_of_settings": {"path": str(file), "sha256": hashlib.sha256(code.encode()).hexdigest()}}
    entries = [{"where": "sppf", "layer": "block_of_settings.Block"}]
    start = BASE | {"weights": weights}
    with pytest.raises(ValueError, match="no module block_of_settings"):
        DetectorModule(**start, replace=entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        model = DetectorModule(**start, replace=entries, block_files=facts)
    assert type(model.model.backbone.sppf).__name__ == "Block"
    assert model.hparams.block_files == facts
    assert model.hparams.overrides["replace"][0]["where"] == ["sppf"]
    assert (model.model.backbone.stem.conv.weight == 7).all()

    bigger = BASE | {"weights": weights, "overrides": TINY | {"depth": 1.0}}  # more blocks in a stage of the neck
    with pytest.raises(ValueError, match="nothing was loaded"):
        DetectorModule(**bigger)
    model = DetectorModule(**bigger, new_parts=["neck", "backbone"])
    assert (model.model.backbone.stem.conv.weight == 7).all()
    with pytest.raises(ValueError, match=r"new_parts is \['neck'\], but there are no weights"):
        DetectorModule(**BASE, new_parts=["neck"])


def test_settings_of_the_trainer_count() -> None:
    """Accumulation, processes and clipping of the Trainer, and a training without end."""
    model = module({"weight_decay": 0.01}, accumulate_grad_batches=5)
    assert effects(model)["batches of a step"] == 5
    assert effects(model)["decay"] == pytest.approx(0.01 * 5 * BATCH_SIZE / BASE["nominal_batch"])
    model = module({"nominal_batch": 11, "weight_decay": 0.01}, world_size=2)  # round(11 / (2 * 2)) batches on each
    assert effects(model)["batches of a step"] == 3
    assert effects(model)["decay"] == pytest.approx(0.01 * 12 / 11)

    (optimizer,) = model.trainer.optimizers
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.configure_gradient_clipping(optimizer, 0.25, "value")
    assert {p.grad.max().item() for p in model.parameters()} == {0.25}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    module({"clip_norm": 0.0}).configure_gradient_clipping(optimizer)
    assert {p.grad.max().item() for p in model.parameters()} == {1.0}

    model = module({}, max_epochs=None, current_epoch=1000)
    model.on_train_batch_start({}, 0)
    assert model.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)  # no decay


def test_resuming_sets_the_groups_as_this_run_is_configured() -> None:
    """A Trainer restores the groups of the checkpoint before the training starts."""
    before, model = module({"lr": 0.5, "weight_decay": 0.3, "class_lr_ratio": 9.0}), module({})
    expected = [{k: v for k, v in group.items() if k != "params"} for group in model.trainer.optimizers[0].param_groups]
    model.trainer.optimizers[0].load_state_dict(before.trainer.optimizers[0].state_dict())
    model.on_train_start()
    for group, values in zip(model.trainer.optimizers[0].param_groups, expected, strict=True):
        assert {key: group[key] for key in values} == values


def test_a_weight_of_a_class_without_training_objects_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="1 class is in no training image, so a weight changes nothing: green"):
        module({"class_weights": {"green": 3.0}}, datamodule=SimpleNamespace(absent_classes=["green"]))
    with pytest.warns(UserWarning, match="2 classes are in no training image, so a weight changes nothing: red, green"):
        module({"class_weights": {"green": 3.0, "red": 2}}, datamodule=SimpleNamespace(absent_classes=["green", "red"]))


def test_a_ratio_of_a_frozen_part_is_warned_of() -> None:
    frozen = {"freeze": ["backbone"], "lr_ratios": {"neck": 0.5, "backbone.stage_p5": 0.1}}
    with pytest.warns(
        UserWarning, match=r"^model\.lr_ratios backbone\.stage_p5 changes nothing: its part is frozen"
    ) as warned:
        module(frozen | {"backbone_lr_ratio": 0.2})  # its default with weights of a backbone
    assert len(warned) == 1
    with pytest.warns(UserWarning, match=r"^model\.backbone_lr_ratio changes nothing: its part is frozen"):
        module({"freeze": ["backbone"], "backbone_lr_ratio": 0.3})
    with pytest.warns(UserWarning, match=r"^model\.class_lr_ratio changes nothing: the class branches are frozen") as warned:
        module({"freeze": ["head"], "class_lr_ratio": 1.0})
    module({"freeze": ["neck"], "class_lr_ratio": 1.0})
    module({"freeze": ["head"]})
    assert len(warned) == 1


def test_fitting_again_chooses_the_accumulation_again() -> None:
    """The number that this module chose before is not taken for the user's."""
    model = module({})
    model.trainer.train_dataloader.batch_size = 1
    model.configure_optimizers()
    assert model.trainer.accumulate_grad_batches == 4


def test_what_a_step_returns_and_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three images on each of two processes, four batches a step, in epoch 6: 0.1 + 0.7 * (1 - 6 / 9) of one2many."""
    model = module({})
    model.trainer.configure_mock(world_size=2, accumulate_grad_batches=4, current_epoch=6)
    outputs, batch = outputs_and_batch(images=3)
    monkeypatch.setattr(model, "forward", lambda images: outputs)
    logged: dict[str, tuple[Tensor, dict[str, Any]]] = {}
    monkeypatch.setattr(model, "log", lambda name, value, **kwargs: logged.update({name: (value, kwargs)}))
    monkeypatch.setattr(model, "log_dict", lambda values, **kwargs: [model.log(k, v, **kwargs) for k, v in values.items()])
    share = 0.1 + 0.7 / 3
    batch["images"] = torch.zeros(3, 3, 64, 96)
    expected = model.loss(outputs, batch["targets"], (64, 96), share)
    sums_over_processes: list[bool] = []
    loss = model.loss
    model.loss = lambda *args, **kwargs: sums_over_processes.append(kwargs["all_processes"]) or loss(*args, **kwargs)
    total = share * sum(v for k, v in expected.items() if k.startswith("one2many"))
    total += (1 - share) * sum(v for k, v in expected.items() if k.startswith("one2one"))

    torch.testing.assert_close(model.training_step(batch, 0), total * 3 * 2 * 2 * 4)
    assert not any(term.requires_grad for term in model.latest_terms.values())
    assert model.latest_terms.keys() == expected.keys()
    bar, options = logged.pop("loss")
    assert bar == logged["train/total"][0]
    assert options == {"on_step": True, "on_epoch": False, "prog_bar": True, "logger": False}
    assert logged.keys() == {f"train/{name}" for name in expected}
    for name, (value, options) in logged.items():
        torch.testing.assert_close(value, 2 * expected[name.removeprefix("train/")].detach(), msg=name)
        assert options == {"on_step": False, "on_epoch": True, "batch_size": 3, "sync_dist": True}

    logged.clear()
    assert model.eval().validation_step(batch, 0) is outputs
    assert sums_over_processes == [True, False]
    assert logged.keys() == {f"val/{name}" for name in expected}
    for name, (value, options) in logged.items():
        torch.testing.assert_close(value, expected[name.removeprefix("val/")], msg=name)
        assert options == {"batch_size": 3, "sync_dist": True}


def test_the_logged_rate_is_that_of_the_first_group_and_prediction_is_without_nms(monkeypatch: pytest.MonkeyPatch) -> None:
    model = module({})
    model.on_train_batch_start({}, 2)  # in the warm-up, where biases have another rate
    log = Mock()
    monkeypatch.setattr(model, "log", log)
    model.on_train_epoch_end()
    log.assert_called_once_with("train/lr", model.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1, sync_dist=True)

    detect = Mock(return_value=[])
    monkeypatch.setattr(model.model, "detect", detect)
    model.to(torch.float64).predict_step({"images": torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)}, 0)
    (images,) = detect.call_args.args
    assert detect.call_args.kwargs == {}  # by default the NMS-free branch
    assert images.dtype == torch.float64  # the precision of the network
    assert (images == 1).all()


@pytest.mark.parametrize("name", [*UPPER_LIMITS, "nominal_batch"])
@pytest.mark.parametrize("value", [-1, float("nan"), "1"])
def test_a_number_outside_of_its_limits_is_refused_before_the_training(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; expected a (whole )?number"):
        DetectorModule(**BASE | {name: value})


def test_an_unknown_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown lr_decay 'cosin'; did you mean cosine"):
        DetectorModule(**BASE, lr_decay="cosin")


def test_every_number_has_limits() -> None:
    numbers = {
        name
        for name, parameter in inspect.signature(DetectorModule).parameters.items()
        if {int, float} & (types := {*(get_args(parameter.annotation) or [parameter.annotation])})
        and types <= {int, float, Auto, type(None)}
    }
    assert numbers == {*UPPER_LIMITS, "nominal_batch", "backbone_lr_ratio"}  # the last has a check of its own
