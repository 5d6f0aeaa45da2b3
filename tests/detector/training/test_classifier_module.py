"""ClassifierModule: loss and metrics by hand, every setting reaches what it sets, runs resume to the bit."""

import inspect
import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, Dataset

from detector import ClassifierModule
from detector.batch import ClassBatch
from detector.callbacks.ema import RampedEMA
from detector.evaluation.classification import ranks
from detector.training.classifier_module import class_losses
from detector.training.parts import freeze_parts
from detector.training.schedule import StepSchedule
from detector.training.setting_checks import CLASSIFIER_LIMITS
from detector.training.top_classes import TopClasses
from detector.weights.classifier import read_classifier
from tests.processes import Processes

TINY = {"width": 0.125, "depth": 0.33}
BASE = {"variant": "dyn_n", "overrides": TINY, "class_names": ["cat", "dog", "owl"]}
EPOCHS, BATCHES, BATCH_SIZE = 10, 4, 2


class Colors(Dataset):
    """Images of 32 pixels in three colors; every other one is mixed with the next color."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index))
        image[index % 3] += 0.5
        mixed = index % 2
        other = (index + mixed) % 3
        numbers = {"labels": index % 3, "other_labels": other, "shares": 1 - 0.25 * mixed, "indices": index}
        return {"images": image.clamp(max=1)} | {name: torch.tensor(value) for name, value in numbers.items()}


def batch(size: int = 4) -> ClassBatch:
    return next(iter(DataLoader(Colors(size), size)))


def trainer(tmp_path: Path, **settings: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    defaults = {"max_epochs": 2, "accelerator": "cpu", "default_root_dir": tmp_path, "num_sanity_val_steps": 0}
    return L.Trainer(**quiet | defaults | settings)


def in_training(settings: dict[str, Any], **trainer_settings: Any) -> ClassifierModule:
    """Build a module in the state of a training of EPOCHS epochs with BATCHES batches of BATCH_SIZE images."""
    torch.manual_seed(0)
    model = ClassifierModule(**BASE | settings)
    mock = Mock(
        world_size=1, num_nodes=1, accumulate_grad_batches=1, max_epochs=EPOCHS, max_steps=-1, num_training_batches=BATCHES
    )
    mock.configure_mock(
        gradient_clip_val=None, gradient_clip_algorithm=None, precision_plugin=Precision(), global_step=0, current_epoch=0
    )
    mock.configure_mock(**trainer_settings)
    mock.train_dataloader.batch_size = BATCH_SIZE
    mock.estimated_stepping_batches = EPOCHS * BATCHES
    model._trainer = mock
    mock.global_rank = 0
    mock.optimizers = [model.configure_optimizers()]
    model.model.compile = Mock()
    model.on_fit_start()
    model.on_train_start()
    return model


def effects(model: ClassifierModule) -> dict[str, Any]:
    """Return what the settings have set."""
    (optimizer,), network = model.trainer.optimizers, model.model.network
    stem = next(p for p in network.parameters() if p.ndim == 4)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.configure_gradient_clipping(optimizer)
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.requires_grad]).norm().item()
    model.trainer.global_step = 12  # in the middle of a warm-up of half of the training
    model.on_train_batch_start({}, 0)
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    first = optimizer.param_groups[0]
    logits, smooth = torch.tensor([[2.0, 0.0, -1.0]]), {"labels": [0], "other_labels": [0], "shares": [1.0]}
    target = {name: torch.tensor(value) for name, value in smooth.items()}
    return {
        "classes": model.model.num_classes,
        "stem": tuple(stem.shape),
        "backbone": model.model.backbone,
        "rates": (len(rates), pytest.approx(rates[-1], rel=1e-6)),
        "lowest": pytest.approx(rates[0] / rates[-1]),
        "at the end": pytest.approx(model.schedule.factor(EPOCHS * BATCHES)),
        "optimizer": type(optimizer).__name__,
        "decay": max(group["weight_decay"] for group in optimizer.param_groups),
        "momentum": first["betas"][0] if "betas" in first else first["momentum"],
        "batches of a step": model.trainer.accumulate_grad_batches,
        "loss": pytest.approx(class_losses(logits, target, model.hparams.label_smoothing).item()),
        "dropout": network.dropout.p if hasattr(network, "dropout") else network.drop_rate,
        "clipped": norm < 3,
        "layout": stem.is_contiguous(memory_format=torch.channels_last),
        "compiled": model.model.compile.called,
        "frozen": {name for name, p in network.named_parameters() if not p.requires_grad},
        "image size": model.hparams.image_size,
        "16-bit range": model.hparams.sixteen_bit_range,
        "data": (model.saved_origin.data_license, model.saved_origin.data_provenance),
        "replaced": list(model.model.replaced),
    }


RATE = 0.002 * BATCH_SIZE / 1024  # scaled to the images of a step
WARM = 13 / 20  # of the warm-up, in step 12: it has 5 epochs
SMOOTH = -math.log(math.e**2 / (math.e**2 + 1 + 1 / math.e)) + 0.1 * (2 - 1 / 3)
STEM = {f"backbone.stem.{name}" for name in ("conv.weight", "norm.weight", "norm.bias")}
EXPECTED = {
    "classes": 3, "stem": (8, 3, 3, 3), "backbone": "yolo26", "rates": (1, RATE * WARM), "lowest": 1.0, "at the end": 0.0,
    "optimizer": "AdamW", "decay": 0.05, "momentum": 0.9, "batches of a step": 1, "loss": SMOOTH, "dropout": 0.0,
    "clipped": False, "layout": True, "compiled": False, "frozen": set(), "image size": None, "16-bit range": None,
    "data": (None, None), "replaced": [],
}  # fmt: skip
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "variant": ("yolo26_s", {"stem": (8, 3, 3, 3)}),
    "class_names": (["a", "b"], {"classes": 2}),
    "overrides": (TINY | {"width": 0.25}, {"stem": (16, 3, 3, 3)}),
    "backbone": ("timm/test_resnet", {"backbone": "timm/test_resnet", "stem": (16, 3, 3, 3)}),
    "image_size": ((32, 64), {"image size": [32, 64]}),
    "optimizer": ("musgd", {"optimizer": "MuSGD", "rates": (1, RATE * WARM * 80), "decay": 5e-4}),
    "lr": (0.004, {"rates": (1, 2 * RATE * WARM)}),
    "final_lr_ratio": (0.1, {"at the end": 0.1}),
    "weight_decay": (0.2, {"decay": 0.2}),
    "momentum": (0.8, {"momentum": 0.8}),
    "warmup_epochs": (4.0, {"rates": (1, RATE * 13 / 16)}),
    "nominal_batch": (8, {"batches of a step": 4, "rates": (1, 4 * RATE * (1 + math.cos(math.pi * 7 / 35)) / 2)}),
    "layer_decay": (0.5, {"rates": (8, RATE * WARM), "lowest": 0.5**7}),
    "label_smoothing": (0.0, {"loss": SMOOTH - 0.1 * (2 - 1 / 3)}),
    "dropout": (0.3, {"dropout": 0.3}),
    "clip_norm": (2.0, {"clipped": True}),
    "channels_last": (False, {"layout": False}),
    "compile": (True, {"compiled": True}),
    "freeze": (["backbone.stem"], {"frozen": STEM}),
    "data_license": ("CC0-1.0", {"data": ("CC0-1.0", None)}),
    "data_provenance": ("drawn", {"data": (None, "drawn")}),
    "sixteen_bit_range": ((0, 4095), {"16-bit range": [0, 4095]}),
    "replace": ([{"where": "sppf", "layer": "torch.nn.Identity"}], {"replaced": ["backbone.sppf"]}),
}
ELSEWHERE = (
    "weights",
    "accept_license",
    "drop_path",
    "block_files",
)  # test_classifier_files.py, test_classifier.py, test_files


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_reaches_what_it_sets_and_nothing_else(name: str) -> None:
    value, differences = SETTINGS[name]
    got, expected = effects(in_training({name: value})), EXPECTED | differences
    if name == "backbone":
        expected["dropout"] = got["dropout"]
    for key, effect in got.items():
        assert effect == expected[key], key


def test_a_decay_over_frozen_layers_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    in_training({"freeze": ["backbone"], "layer_decay": 0.5})
    assert [str(w.message) for w in recwarn if "layer_decay changes nothing" in str(w.message)] != []
    recwarn.clear()
    in_training({"freeze": ["backbone.stem"], "layer_decay": 0.5})
    in_training({"freeze": ["backbone"]})
    assert [str(w.message) for w in recwarn if "layer_decay" in str(w.message)] == []


@pytest.mark.parametrize("backbone", ["yolo26", "timm/test_efficientnet", "parameternet_w050"])
def test_names_of_parts_to_freeze_work_with_every_backbone(backbone: str) -> None:
    """The backbone is exactly what a detector takes from the file; a network of timm also has timm's names."""
    with torch.device("meta"):
        model = ClassifierModule("yolo26_n", ["a", "b"], TINY, backbone, freeze=["backbone"]).train()
    network, norms = model.model.network, nn.modules.batchnorm._BatchNorm
    in_trunk = {name for name, _ in network.named_parameters()} & set(model.model.trunk)
    assert frozen(network) == in_trunk
    in_norms = {f"{name}.weight": module for name, module in network.named_modules() if isinstance(module, norms)}
    assert {name for name, module in in_norms.items() if not module.training} == in_norms.keys() & in_trunk != set()

    groups = model.model.part_groups
    of_norms = {name for weight in in_norms for name in (weight, weight.replace(".weight", ".bias"))}
    stem = tuple(f"backbone.stem.{part}" if backbone == "yolo26" else part for part in ("conv", "bn1", "norm"))
    of_stem = {name for name in in_trunk if name.startswith(stem)}
    for part, expected in (("norms", of_norms), ("backbone.norms", of_norms & in_trunk), ("backbone.stem", of_stem)):
        freeze_parts(network.requires_grad_(True), [part], groups)
        assert frozen(network) == expected != set()
    own_name = "backbone.stem.conv" if backbone == "yolo26" else "conv_stem"
    freeze_parts(network.requires_grad_(True), [own_name], groups)
    assert frozen(network) == {name for name in in_trunk if name.startswith(own_name)}
    with pytest.raises(ValueError, match=rf"names no part of .*; did you mean {own_name}"):
        freeze_parts(network, [own_name[:-1]], groups)


def frozen(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if not p.requires_grad}


def test_every_setting_is_tested() -> None:
    assert {*SETTINGS, *ELSEWHERE} == set(inspect.signature(ClassifierModule).parameters)
    numbers = {name for name, value in SETTINGS.items() if type(value[0]) is float}
    assert numbers - {"dropout"} | {"lr"} == set(CLASSIFIER_LIMITS)


@pytest.mark.parametrize("name", [*CLASSIFIER_LIMITS, "nominal_batch", "dropout"])
def test_a_number_outside_of_its_limits_is_refused(name: str) -> None:
    for value in (-1, float("nan"), "1"):
        with pytest.raises(ValueError, match=f"^{name} is {value!r}; expected a (whole )?number"):
            ClassifierModule(**BASE | {name: value})


def test_the_schedule_by_hand() -> None:
    """Four steps of warm-up, then half a cosine; never more than half of the training to warm up; no end, no decay."""
    schedule = StepSchedule(12, 4, 0.1)
    rises = [0.25, 0.5, 0.75, 1.0]
    falls = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)]
    assert [schedule.factor(step) for step in range(13)] == pytest.approx(rises + falls)
    assert [StepSchedule(4, 100).factor(step) for step in range(4)] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert [StepSchedule(math.inf, 2).factor(step) for step in (0, 1, 2, 10**6)] == [0.5, 1.0, 1.0, 1.0]
    assert StepSchedule(1).factor(0) == 1.0


def test_loss_of_mixed_images_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])
    shares, targets = torch.tensor([1.0, 0.25]), torch.zeros(2, 3)
    targets[0, 2], targets[1, 0], targets[1, 1] = 1.0, 0.25, 0.75
    mixed = {"labels": torch.tensor([2, 0]), "other_labels": torch.tensor([2, 1]), "shares": shares}
    expected = -((0.9 * targets + 0.1 / 3) * logits.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(class_losses(logits, mixed, 0.1), expected)


def test_ranks_and_metrics_by_hand() -> None:
    """Equal logits count as in argmax, what is not a number is never right, and an image that comes twice counts once."""
    logits = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [torch.nan, 9.0, 0.0], [0.0, 1.0, 2.0]])
    labels = torch.tensor([1, 0, 1, 1, 0])
    assert ranks(logits, labels).tolist() == [0, 0, 1, 3, 2]
    top = TopClasses()
    assert top.metrics("val") == {}
    many = torch.cat([logits, torch.full((5, 4), -1.0)], dim=1)
    top.add(torch.arange(5), torch.arange(5.0), many, labels)
    top.add(torch.tensor([4]), torch.tensor([9.0]), many[:1], labels[:1])
    assert top.metrics("val") == {"val/loss": 2.0, "val/top1": pytest.approx(0.4), "val/top5": pytest.approx(0.8)}


def test_forward_and_loss_on_cuda_and_in_bfloat16() -> None:
    """Fake tensors of two devices cannot meet, also on a machine without a GPU."""
    model, images = ClassifierModule(**BASE).train(), batch()
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: torch.empty_like(value, device="cuda") for name, value in model.state_dict().items()}
        on_cuda = {name: torch.empty(value.shape, dtype=value.dtype, device="cuda") for name, value in images.items()}
        logits = torch.func.functional_call(model, state, (on_cuda["images"],))
        assert class_losses(logits, on_cuda, 0.1).device.type == "cuda"
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images["images"])
        losses = class_losses(logits, images, 0.1)
    assert (logits.dtype, losses.dtype) == (torch.bfloat16, torch.float32)
    losses.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_norms_of_all_processes_compute_the_same_in_evaluation() -> None:
    """timm's BatchNorms have an activation, which Lightning's conversion loses."""
    model, images = ClassifierModule("yolo26_n", ["a", "b"], backbone="timm/test_efficientnet").eval(), batch()["images"]
    expected = model(images)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()
    converted.on_fit_start()
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    torch.testing.assert_close(converted(images), expected)


class KeepState(L.Callback):
    """Saves a checkpoint after the first epoch, and keeps rates and losses."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        self.rows.append((trainer.optimizers[0].param_groups[0]["lr"], module.latest_terms["total"].item()))

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "first.ckpt")


def test_a_resumed_run_is_the_same_to_the_bit_and_its_checkpoint_has_the_facts(tmp_path: Path) -> None:
    """Three batches of four images an epoch, two to a step. The file has the averaged weights."""
    runs = []
    for resume in (None, tmp_path / "first.ckpt"):
        torch.manual_seed(0)
        settings = {"nominal_batch": 8, "lr": 0.5, "dropout": 0.2, "data_license": "CC0-1.0", "warmup_epochs": 0.5}
        model, keep = ClassifierModule(**BASE | {"class_names": list("abc")} | settings), KeepState()
        fitted = trainer(tmp_path, callbacks=[RampedEMA(0.9, 2), keep])
        if resume is not None:
            torch.manual_seed(7)
            fitted.fit(model, *loaders(), ckpt_path=resume, weights_only=True)
        else:
            fitted.fit(model, *loaders())
        runs.append((model, keep.rows, fitted))
    (whole, rows, fitted), (resumed, later_rows, _) = runs
    assert later_rows == rows[3:]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
    assert fitted.global_step == 4
    rate = 0.5 * 8 / 1024
    factors = [1.0, 1.0, 1.0, *[(1 + math.cos(math.pi * step / 3)) / 2 for step in (1, 1, 2)]]
    assert [lr for lr, _ in rows] == pytest.approx([rate * factor for factor in factors])
    val = [Colors(5)[index] for index in range(5)]
    logits = whole.eval()(torch.stack([sample["images"] for sample in val]))
    labels = torch.tensor([sample["labels"] for sample in val])
    metrics = fitted.callback_metrics
    assert metrics["val/top1"].item() == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item())
    assert metrics["val/top5"] == 1
    info = read_classifier(tmp_path / "first.ckpt").info
    assert info.provenance == "trained with lightning-dyn-detector for 1 epoch from scratch"
    assert (info.data_license, info.class_names) == ("CC0-1.0", ["a", "b", "c"])
    assert set(info.metrics) == {"val/loss", "val/top1", "val/top5"}


class Record(L.Callback):
    """Freezes norms, and writes the gradients of the first step and the metrics, from the first process."""

    def __init__(self, path: Path) -> None:
        self.path, self.gradients = path, []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        self.gradients.append({name: p.grad.clone() for name, p in module.named_parameters()})

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = dict(trainer.callback_metrics)
        if trainer.is_global_zero:
            torch.save({"gradients": self.gradients[0], "metrics": metrics}, self.path)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_train_and_evaluate_like_one(tmp_path: Path, processes: Processes) -> None:
    """2 x 4 images against 1 x 8. Five images of validation become six in two processes, and one of them counts once."""
    results = []
    for count in (1, 2):
        torch.manual_seed(0)
        path, data = tmp_path / f"{count}.pt", DataLoader(Colors(8), 8 // count)
        runs = {"callbacks": [Record(path)], "max_epochs": 1, **processes(count)}
        trainer(tmp_path, **runs).fit(ClassifierModule(**BASE), data, DataLoader(Colors(5), 2))
        results.append(torch.load(path, weights_only=True))
    one, two = results
    largest = max(value.abs().max().item() for value in one["gradients"].values())
    for name, value in two["gradients"].items():
        torch.testing.assert_close(value, one["gradients"][name], rtol=1e-4, atol=1e-5 * largest)
    for name in ("train/loss", "train/lr", "val/loss", "val/top1"):
        torch.testing.assert_close(two["metrics"][name], one["metrics"][name], rtol=1e-4, atol=1e-5)


def loaders() -> tuple[DataLoader, DataLoader]:
    return DataLoader(Colors(12), 4), DataLoader(Colors(5), 2)
