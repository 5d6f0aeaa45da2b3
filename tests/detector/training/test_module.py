"""DetectorModule as a library: with a plain Trainer and a plain dataloader."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from detector import DetectorModule
from detector.callbacks.ema import RampedEMA
from tests.detector.training.by_hand import branch_share, learning_rate, warmed_up

NAMES = ["red", "green"]
TINY = {"width": 0.125, "depth": 0.33}


class Rectangles(Dataset):
    """Images in the format of ``Batch`` with one bright rectangle each, except every third."""

    def __init__(
        self, num_images: int, size: tuple[int, int] = (64, 64), distinct: int | None = None, empty: bool = True
    ) -> None:
        self.num_images, self.size, self.distinct, self.empty = num_images, size, distinct or num_images, empty

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        index %= self.distinct
        image = torch.full((3, *self.size), 114, dtype=torch.uint8)
        if self.empty and index % 3 == 2:
            return image, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        x, y, label = 4 + index % 7 * 3, 6 + index % 5 * 4, index % 2
        image[label, y : y + 24, x : x + 28] = 255
        return image, {"boxes": torch.tensor([[x, y, x + 28.0, y + 24]]), "labels": torch.tensor([label])}


def collate(samples: list[tuple[Tensor, dict]]) -> dict[str, Any]:
    return {"images": torch.stack([image for image, _ in samples]), "targets": [target for _, target in samples]}


def loader(num_images: int, batch_size: int, **kwargs: Any) -> DataLoader:
    return DataLoader(Rectangles(num_images, **kwargs), batch_size=batch_size, collate_fn=collate)


def module(**kwargs: Any) -> DetectorModule:
    torch.manual_seed(0)
    return DetectorModule(**{"variant": "dyn_n", "overrides": TINY, "class_names": NAMES, "warmup_epochs": 0.0, **kwargs})


def trainer(tmp_path: Path, **kwargs: Any) -> L.Trainer:
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "default_root_dir": tmp_path,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(**{**defaults, **kwargs})


class Steps(L.Callback):
    """Freeze norms, and keep the gradients of every optimizer step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        for layer in pl_module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.gradients.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})


def gradients(tmp_path: Path, data: DataLoader, **kwargs: Any) -> tuple[list[dict[str, Tensor]], L.Trainer]:
    steps = Steps()
    fitted = trainer(tmp_path, callbacks=[steps])
    fitted.fit(module(**kwargs), data)
    return steps.gradients, fitted


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    largest = max(value.abs().max() for value in b.values())
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5 * largest.item())


def test_four_batches_equal_one_of_their_sum(tmp_path: Path) -> None:
    """The same images in every batch, so that the normalizer of each batch is a quarter of the whole one's."""
    parts, a = gradients(tmp_path, loader(16, 4, distinct=4), nominal_batch=16)
    whole, b = gradients(tmp_path, loader(16, 16, distinct=4), nominal_batch=16)
    assert (a.accumulate_grad_batches, b.accumulate_grad_batches) == (4, 1)
    assert len(parts) == len(whole) == 1
    assert_same(parts[0], whole[0])


def test_thirteen_batches_an_epoch_end_in_a_window_of_one(tmp_path: Path) -> None:
    """Windows of 4, 4, 4 and 1 batches; all batches are alike, and lr 0 keeps the weights, so gradients are 4 : 1."""
    steps, fitted = gradients(tmp_path, loader(26, 2, distinct=2), nominal_batch=8, lr=0.0, warmup_bias_lr=0.0)
    assert fitted.global_step == len(steps) == 4
    assert_same(steps[0], {name: 4 * value for name, value in steps[3].items()})
    assert_same(steps[1], steps[0])


@pytest.mark.parametrize(
    ("batch_size", "accumulated", "decay"), [(4, 4, 1.0), (16, 1, 1.0), (12, 1, 0.75), (40, 1, 2.5), (6, 3, 1.125)]
)
def test_accumulation_and_decay_follow_the_batch(tmp_path: Path, batch_size: int, accumulated: int, decay: float) -> None:
    model = module(nominal_batch=16, weight_decay=0.01)
    fitted = trainer(tmp_path, max_steps=1, limit_train_batches=1)
    fitted.fit(model, loader(48, batch_size))
    assert fitted.accumulate_grad_batches == accumulated
    assert max(g["weight_decay"] for g in fitted.optimizers[0].param_groups) == pytest.approx(0.01 * decay)


class Record(L.Callback):
    """Keeps, for every batch, its epoch and number, the rates and momenta of the groups, and the weight of one2many."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, dict[str, tuple[float, float]], float]] = []

    def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        groups = {g["name"]: (g["lr"], g["momentum"]) for g in trainer.optimizers[0].param_groups}
        terms = {name: value.item() for name, value in module.latest_terms.items()}
        many, one = (sum(v for name, v in terms.items() if name.startswith(branch)) for branch in ("one2many", "one2one"))
        share = (terms["total"] - one) / (many - one)
        self.rows.append((trainer.current_epoch, trainer.fit_loop.batch_idx, groups, share))


def test_every_batch_of_an_accumulating_run_has_the_schedule_worked_out_by_hand(tmp_path: Path) -> None:
    """Three epochs of five batches, two to a step, with a warm-up of 1.5 epochs."""
    decay = {"lr": 0.02, "final_lr_ratio": 0.2, "lr_decay": "cosine", "warmup_epochs": 1.5}
    model = module(
        nominal_batch=4,
        class_lr_ratio=2.0,
        lr_ratios={"neck": 0.5},
        momentum=0.95,
        warmup_momentum=0.6,
        warmup_bias_lr=0.05,
        **decay,
    )
    fitted = trainer(tmp_path, max_epochs=3, callbacks=[record := Record()])
    fitted.fit(model, loader(10, 2))
    assert (fitted.accumulate_grad_batches, fitted.global_step) == (2, 9)
    assert [row[:2] for row in record.rows] == [(epoch, batch) for epoch in range(3) for batch in range(5)]
    for epoch, batch, groups, share in record.rows:
        assert share == pytest.approx(branch_share(epoch, 3), abs=1e-4)
        assert {"kernels", "routers", "class biases", "neck norms"} <= groups.keys()
        for name, rate_and_momentum in groups.items():
            ratio = (2.0 if "class" in name else 1.0) * (0.5 if "neck" in name else 1.0)
            start = 0.05 if "biases" in name else 0.0
            done = epoch + batch / 5
            rate = learning_rate(epoch, done, 3, start=start, **decay | {"lr": 0.02 * ratio})
            momentum = warmed_up(0.6, 0.95, done, 3, 1.5)
            assert rate_and_momentum == pytest.approx((rate, momentum)), (epoch, batch, name)


def test_few_optimizer_steps_are_logged_with_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        trainer(tmp_path, max_epochs=2).fit(module(nominal_batch=4), loader(12, 2))
    assert "the whole run has only 6 optimizer steps; on a small set a lower model.nominal_batch (now 4" in caplog.text


def test_a_loader_without_a_batch_size_is_refused_before_training(tmp_path: Path) -> None:
    batches = [collate([Rectangles(2)[0], Rectangles(2)[1]])]
    with pytest.raises(ValueError, match="has no batch_size"):
        trainer(tmp_path).fit(module(), batches)


@pytest.mark.parametrize("clip", [0.5, 0.0])
def test_gradients_are_clipped_by_default(tmp_path: Path, clip: float) -> None:
    class Clipped(DetectorModule):
        """Record the norm of the gradients that the optimizer has used."""

        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
            grads = [p.grad.norm() for p in self.parameters() if p.grad is not None]
            norms.extend([torch.stack(grads).norm().item()] if grads else [])
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    norms: list[float] = []
    torch.manual_seed(0)
    trainer(tmp_path).fit(Clipped("dyn_n", NAMES, clip_norm=clip, nominal_batch=4), loader(12, 4))
    assert len(norms) == 2  # before the second and third step
    if clip:
        assert max(norms) == pytest.approx(clip, rel=1e-3)
    else:
        assert min(norms) > 1.0


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("musgd", "bf16-mixed"), ("musgd", "32-true"), ("sgd", "32-true"), ("adamw", "32-true")]
)
def test_trains_with_a_plain_dataloader(tmp_path: Path, optimizer: str, precision: str) -> None:
    """On images that are not square, with EMA, validation loss and checkpoint. Any optimizer gets weights in float32."""
    model = module(optimizer=optimizer, category_ids=[7, 9])
    fitted = trainer(
        tmp_path, precision=precision, callbacks=[RampedEMA()], enable_checkpointing=True, limit_train_batches=2
    )
    fitted.fit(model, loader(12, 4, size=(64, 96)), loader(5, 4, size=(64, 96)))
    metrics = fitted.callback_metrics
    for name in ("train/total", "train/one2many/box", "train/one2one/cls", "val/total", "val/one2one/l1", "train/lr"):
        assert metrics[name].isfinite(), name
    path = fitted.checkpoint_callback.best_model_path
    loaded = DetectorModule.load_from_checkpoint(path, weights_only=True)
    assert (loaded.class_names, loaded.category_ids) == (NAMES, [7, 9])
    average = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, average[name]) for name, value in loaded.state_dict().items())


def test_a_batch_without_any_object_trains(tmp_path: Path) -> None:
    data = DataLoader([Rectangles(3)[2]] * 4, batch_size=2, collate_fn=collate)
    fitted = trainer(tmp_path)
    fitted.fit(module(), data, data)
    assert fitted.callback_metrics["train/one2many/cls"] > 0
    assert fitted.callback_metrics["train/one2one/box"] == 0


def test_two_runs_are_equal_to_the_bit(tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        model = module()
        trainer(tmp_path, limit_train_batches=3, callbacks=[RampedEMA()]).fit(model, loader(12, 4))
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_two_epochs_equal_one_and_one(tmp_path: Path) -> None:
    """Raw and averaged weights after a resumed run equal an uninterrupted one's, within an unfinished warm-up."""

    def run(resume: Path | None = None) -> None:
        keep = L.pytorch.callbacks.ModelCheckpoint(
            tmp_path / "keep", filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True
        )
        fitted = trainer(tmp_path, max_epochs=2, callbacks=[RampedEMA(tau=3), keep], enable_checkpointing=True)
        model = module(warmup_epochs=1.5, nominal_batch=8)
        if resume is not None:  # shows if the weights are not restored
            torch.nn.init.zeros_(model.model.backbone.stem.conv.weight)
        fitted.fit(model, loader(12, 4), loader(4, 4), ckpt_path=resume, weights_only=True)

    run()
    straight = torch.load(tmp_path / "keep" / "epoch=1.ckpt", weights_only=True)
    middle = tmp_path / "middle.ckpt"
    (tmp_path / "keep" / "epoch=0.ckpt").rename(middle)
    for old in (tmp_path / "keep").glob("*.ckpt"):
        old.unlink()
    run(middle)
    assert not (tmp_path / "keep" / "epoch=0.ckpt").exists()
    resumed = torch.load(tmp_path / "keep" / "epoch=1.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in straight[part].items()), part
    assert straight["global_step"] == resumed["global_step"]


def test_prediction_uses_the_averaged_weights(tmp_path: Path) -> None:
    """After training, and from a checkpoint by the same Trainer, whose callback must not load the raw weights."""
    model = module(nominal_batch=4)
    fitted = trainer(tmp_path, callbacks=[RampedEMA(tau=3)], limit_train_batches=2, enable_checkpointing=True)
    fitted.fit(model, loader(8, 4))
    checkpoint = torch.load(fitted.checkpoint_callback.best_model_path, weights_only=True)
    average, raw = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert not torch.equal(average["model.backbone.stem.conv.weight"], raw["model.backbone.stem.conv.weight"])
    for ckpt_path in (None, fitted.checkpoint_callback.best_model_path):
        (detections,) = fitted.predict(model, loader(2, 2), ckpt_path=ckpt_path)
        assert [set(d) for d in detections] == [{"boxes", "scores", "labels"}] * 2
        assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())


def test_half_precision_weights_train(tmp_path: Path) -> None:
    fitted = trainer(tmp_path, precision="bf16-true", limit_train_batches=1)
    fitted.fit(module(), loader(4, 4), loader(2, 2))
    assert fitted.callback_metrics["train/total"].isfinite()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="class_names is empty"):
        DetectorModule(variant="dyn_n")
    with pytest.raises(ValueError, match="2 class_names but 1 category_ids"):
        DetectorModule(class_names=NAMES, category_ids=[1])
    with pytest.raises(ValueError, match="unknown optimizer 'lion'"):
        DetectorModule(class_names=NAMES, optimizer="lion")
    with pytest.raises(ValueError, match="unknown override 'widht'; did you mean width"):
        DetectorModule(class_names=NAMES, overrides={"widht": 1})


def test_uint8_and_float_images_give_the_same() -> None:
    model = module().eval()
    images = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        a, b = model(images), model(images.float() / 255)
    assert torch.equal(a["one2one"]["scores"], b["one2one"]["scores"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_names": "cat"},
        {"class_names": []},
        {"class_names": None},
        {"class_names": ["cat", 3]},
        {"class_names": ["cat", ""]},
        {"class_names": ["cat", "cat"]},
        {"class_names": ["cat", "dog"], "category_ids": [1]},
        {"class_names": ["cat", "dog"], "category_ids": [1, 1]},
    ],
)
def test_wrong_classes_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"class_names (is|has) .*|\d class_names but|category_ids has an id twice"):
        DetectorModule("yolo26_n", **arguments)
    DetectorModule("yolo26_n", ["cat", "cat"], [1, 2])  # COCO files may repeat a name under another id
