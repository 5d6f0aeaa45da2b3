"""DetectorModule that starts from weights: what is loaded, what stays frozen, and what its checkpoints hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from detector import DetectorModule, build_detector, load_detector
from detector.callbacks.ema import RampedEMA
from detector.dynamic.convert import DynamicConfig
from detector.weights.files import read_weights, save_weights
from detector.weights.info import WeightsInfo
from tests.detector.training.test_module import loader, trainer

NAMES = ["red", "green"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Write weights of yolo26_n, with a license, for three classes; one of them is in NAMES."""
    torch.manual_seed(5)
    state_dict = build_detector("yolo26_n", 3).state_dict()
    info = WeightsInfo("yolo26_n", class_names=["green", "blue", "pink"], license="AGPL-3.0", provenance="found")
    info = replace(info, metrics={"val/AP": 0.5}, best_f1_thresholds={"one2one": 0.5})  # of these weights, not of later ones
    save_weights(tmp_path / "start.safetensors", state_dict, info)
    return tmp_path / "start.safetensors"


def fine_tune(tmp_path: Path, module: DetectorModule, epochs: int, resume: Path | None = None) -> Path:
    keep = ModelCheckpoint(tmp_path / "keep", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fitted = trainer(tmp_path, max_epochs=epochs, callbacks=[RampedEMA(tau=2), keep], enable_checkpointing=True)
    fitted.fit(module, loader(4, 2), loader(2, 2), ckpt_path=resume, weights_only=True)
    return tmp_path / "keep" / f"epoch={epochs - 1}.ckpt"


def module(**kwargs: Any) -> DetectorModule:
    return DetectorModule(**{"class_names": NAMES, "warmup_epochs": 0.0, "nominal_batch": 2, **kwargs})


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_frozen_parts_stay_as_they_are_to_the_bit(tmp_path: Path, weights: Path) -> None:
    """Weights and statistics, raw and averaged, also of a run that is resumed without the file it started from."""
    settings = {"freeze": ["backbone", "neck.top_down.0"], "lr_ratios": {"neck": 0.5}}
    model = module(weights=weights, **settings)
    start = copied(model.model)
    frozen = {name for name in start if name.startswith(("backbone.", "neck.top_down.0."))}
    path = fine_tune(tmp_path, model, epochs=2)
    checkpoint = torch.load(path, weights_only=True)
    validation = {name: checkpoint["weights_info"][name] for name in ("metrics", "best_f1_thresholds")}
    assert validation == {"metrics": {}, "best_f1_thresholds": {}}  # new weights, without a validation
    validation = {"metrics": {"val/AP": 0.25}, "best_f1_thresholds": {"one2one": 0.0123}}
    checkpoint["weights_info"].update(validation)
    checkpoint["weights_info"]["licence"] = checkpoint["weights_info"].pop("license")  # the key in older checkpoints
    torch.save(checkpoint, path)
    weights.unlink()
    resumed = torch.load(
        fine_tune(tmp_path, module(variant="yolo26_n", **settings), epochs=3, resume=path), weights_only=True
    )
    for content in (checkpoint, resumed):
        for part in ("state_dict", "current_model_state"):  # the average, and the raw weights
            state = {name.removeprefix("model."): value for name, value in content[part].items()}
            same = {name for name in start if torch.equal(start[name], state[name])}
            assert frozen <= same, part
            assert "neck.top_down.1.merge.norm.running_mean" not in same
            assert "neck.top_down.1.merge.conv.weight" not in same
    names = [group["name"] for group in checkpoint["optimizer_states"][0]["param_groups"]]
    assert "neck kernels" in names
    assert resumed["weights_info"]["started_from"] == "found"  # from the checkpoint
    assert resumed["weights_info"]["license"] == "AGPL-3.0"
    assert {name: resumed["weights_info"][name] for name in validation} == validation  # until the next one


def test_frozen_normalization_never_enters_training_mode() -> None:
    model = module(freeze=["backbone"])
    for mode in (None, True, False, True):  # None: as constructed
        mode = True if mode is None else model.train(mode).training
        states = {name: layer.training for name, layer in model.model.named_modules()}
        assert not any(states[name] for name in states if name.startswith("backbone"))
        assert states["neck"] is mode


def test_a_checkpoint_names_its_initial_weights_and_loads_without_them(tmp_path: Path, weights: Path) -> None:
    path = fine_tune(tmp_path, module(weights=str(weights), category_ids=[7, 9], image_size=(64, 64)), epochs=1)
    weights.unlink()
    loaded = DetectorModule.load_from_checkpoint(path, weights_only=True)
    predictor = load_detector(path)
    for model in (loaded.model, predictor.model):
        average = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.equal(value, average[f"model.{name}"]) for name, value in model.state_dict().items())
    assert (predictor.class_names, predictor.category_ids, predictor.image_size) == (NAMES, [7, 9], (64, 64))
    assert predictor.info.license == "AGPL-3.0"
    assert predictor.info.provenance == "trained with lightning-dyn-detector for 1 epoch, starting from: found"


def test_variant_and_class_channels_come_from_the_weights(weights: Path, tmp_path: Path) -> None:
    model = module(weights=weights)
    assert model.hparams.variant == "yolo26_n"
    assert "weights" not in model.hparams
    row = model.model.state_dict()["head.one2one.cls.0.4.weight"][1]
    assert torch.equal(row, read_weights(weights).state_dict["head.one2one.cls.0.4.weight"][0])  # green

    names = [f"class {i}" for i in range(79)] + ["green"]  # as many classes as COCO: their towers are wider
    save_weights(
        tmp_path / "many.safetensors",
        build_detector("yolo26_n", 80).state_dict(),
        WeightsInfo("yolo26_n", class_names=names),
    )
    model = module(variant="dyn_n", weights=tmp_path / "many.safetensors")
    assert model.hparams.overrides["class_channels"] == 80
    row = model.model.state_dict()["head.one2many.cls.2.4.weight"][1]
    assert torch.equal(row, read_weights(tmp_path / "many.safetensors").state_dict["head.one2many.cls.2.4.weight"][79])


def test_wrong_arguments_are_refused_at_construction(weights: Path) -> None:
    for settings, message in (
        ({"weights": "lost.pt"}, r"lost\.pt: no such file"),
        ({"weights": weights, "variant": "dyn_s"}, "(?s)of another shape.*nothing was loaded"),
        ({"freeze": ["backbon"]}, "'backbon' names no part.*backbone"),
        ({"freeze": ["backbone", "neck", "head"]}, "nothing is left to train"),
        ({"lr_ratios": {"neck.up": 0.1}}, "'neck.up' names no part"),
        ({"lr_ratios": {"neck": 0.0}}, r"\{'neck': 0.0\}; a ratio must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            module(**settings)


def test_checkpoints_hold_nothing_but_tensors_and_plain_values(tmp_path: Path) -> None:
    overrides = {"dynamic": DynamicConfig(num_experts=2)}
    model = module(variant="dyn_n", overrides=overrides, image_size=64, freeze=["backbone.stem"], lr_ratios={"neck": 0.5})
    path = fine_tune(tmp_path, model, epochs=1)
    assert get_unsafe_globals_in_checkpoint(path) == []
    torch.load(path, weights_only=True)
    assert read_weights(path).info.overrides["dynamic"]["num_experts"] == 2
