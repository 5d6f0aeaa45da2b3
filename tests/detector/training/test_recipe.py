"""Recipes by images and start: values, reasons, given values and what follows from them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from benchmarks.recipe.settings import arm_settings
from detector.training import recipe as recipe_file
from detector.training.recipe import RECIPE_FIELDS, recipe_for, recipe_table
from detector.training.recipe_table import BACKBONE, RULES, SMALL_SET
from detector.training.steps import batches_of_epoch, batches_of_run, batches_to_validation, steps_of_run

ROOT = Path(__file__).parents[3]
STUDY = json.loads((ROOT / "benchmarks/results/recipe_study.json").read_text())


@pytest.mark.parametrize("start", RULES)
def test_the_recipe_is_the_winner_of_the_study(start: Any) -> None:
    """The arms of the study are written out, see ``benchmarks.recipe.settings``."""
    decided = STUDY[start]
    assert {text.partition(":")[0] for text in decided["goal"].values()} == {"met"}
    expected = arm_settings(start, decided["winner"])
    recipe = recipe_for(205, start=start)
    found = {f"model.{name}": value for name, value in recipe.model_settings.items()}
    found |= {f"data.augment.{name}": value for name, value in recipe.augment_settings.items()}
    assert {name: expected[name] for name in found} == found
    assert RULES[start].ema_share == (float(decided["average"]) if decided["average"] else None)


def test_larger_sets_have_the_published_schedule_whatever_they_start_from() -> None:
    base = yaml.safe_load((ROOT / "configs/published.yaml").read_text())
    for start in RULES:
        recipe = recipe_for(SMALL_SET + 1, start=start)
        assert recipe.model_settings == {
            "optimizer": base["model"]["optimizer"],
            "lr": 0.01,
            "weight_decay": 5e-4,
            "nominal_batch": 64,
            "warmup_epochs": 3.0,
            "warmup_bias_lr": 0.1,
        }
        assert (recipe.epochs, recipe.mosaic, recipe.close_mosaic) == (base["trainer"]["max_epochs"], 1.0, 10)
        assert recipe.ema_settings == base["ema"]
        assert "published schedule" in recipe_table(recipe, {"lr": "model.lr"}, SMALL_SET + 1, start)
        assert recipe_for(SMALL_SET, start=start).nominal_batch == 16


@pytest.mark.parametrize(
    ("images", "epochs", "closing"), [(5000, 30, 5), (200, 30, 5), (199, 31, 5), (100, 60, 5), (20, 300, 5), (1, 300, 5)]
)
def test_few_images_have_more_epochs(images: int, epochs: int, closing: int) -> None:
    recipe = recipe_for(images, start="detector")
    assert (recipe.epochs, recipe.close_mosaic) == (epochs, closing)
    assert ("more than the 30 of" in recipe.reasons["epochs"]) == (epochs > 30)


def test_given_values_are_kept_and_others_follow() -> None:
    recipe = recipe_for(205, start="detector", given={"optimizer": "adamw", "epochs": 6, "mosaic": 0.9})
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adamw", 0.001, 0.05)
    assert (recipe.epochs, recipe.mosaic, recipe.close_mosaic) == (6, 0.9, 3)
    assert recipe.reasons["lr"] == "follows from adamw"
    assert recipe.reasons["close_mosaic"] == "at most half of 6 epochs"
    assert [name for name in RECIPE_FIELDS if recipe.reasons[name] == "given"] == ["optimizer", "epochs", "mosaic"]
    both = recipe_for(205, start="detector", given={"optimizer": "adamw", "lr": 0.3, "nominal_batch": 8})
    assert (both.lr, both.nominal_batch, both.warmup_bias_lr) == (0.3, 8, 0.0)
    rate = recipe_for(205, start="backbone", given={"lr": 0.01})  # that of MuSGD, with AdamW
    assert rate.reasons["optimizer"].endswith("; its rate would be 0.004, and 0.01 is given: give both")
    assert "given" not in recipe_for(205, start="backbone", given={"lr": 0.004}).reasons["optimizer"]
    endless, default = recipe_for(205, given={"epochs": -1}), recipe_for(205, given={"epochs": None})
    assert (endless.close_mosaic, default.close_mosaic) == (10, 10)
    assert "has no last epochs" in endless.reasons["close_mosaic"]
    assert "the last epochs see" in default.reasons["close_mosaic"]


@pytest.mark.parametrize(
    ("max_steps", "settings", "epochs", "closing"),
    [
        (130, {}, 10, 5),  # 13 steps in an epoch
        (131, {}, 11, 5),
        (3900, {}, 300, 10),
        (9999, {}, 300, 10),
        (0, {}, 1, 0),
        (-1, {}, 300, 10),
        (130, {"given": {"epochs": 40}}, 40, 10),
        (130, {"given": {"epochs": -1}}, -1, 10),
        (50, {"epoch_batches": 4, "accumulated": 2}, 25, 10),
    ],
)
def test_max_steps_leave_no_more_epochs_than_they_fill(
    max_steps: int, settings: dict[str, Any], epochs: int, closing: int
) -> None:
    """Otherwise mosaic would never close, and the rate would stay high."""
    recipe = recipe_for(205, max_steps=max_steps, **settings)
    assert (recipe.epochs, recipe.close_mosaic) == (epochs, closing)
    assert (recipe.reasons["epochs"] == f"enough for trainer.max_steps {max_steps}") == (epochs in (10, 11, 1, 25))


@pytest.mark.parametrize(
    ("images", "batch", "devices", "accumulated", "nominal"),
    [(205, 4, 1, 1, 16), (205, 16, 1, 1, 16), (205, 16, 4, 1, 64), (205, 4, 2, 3, 24), (9000, 16, 8, 1, 64)],
)
def test_images_of_a_step_by_batch_devices_and_accumulation(
    images: int, batch: int, devices: int, accumulated: int, nominal: int
) -> None:
    """A batch of all devices is never more than ``nominal_batch`` on small sets, or weight decay would grow."""
    recipe = recipe_for(images, batch, devices, accumulated=accumulated)
    assert recipe.nominal_batch == nominal
    if accumulated > 1:
        assert recipe.reasons["nominal_batch"] == "trainer.accumulate_grad_batches 3 x 8 images of a batch"


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({"batch_size": 16}, 39),  # 13 steps in each of 60 epochs: 780, and 5 % of them
        ({"batch_size": 4}, 39),  # 52 batches make 13 steps
        ({"batch_size": 16, "num_devices": 4}, 12),  # 4 steps
        ({"batch_size": 8, "num_devices": 2, "accumulated": 2}, 21),  # 13 batches make 7 steps
        ({"given": {"epochs": 1}}, 2),  # at least 2 steps
        ({"batch_size": 16, "epoch_batches": 26}, 78),  # repeated images
        ({"batch_size": 4, "epoch_batches": 6}, 6),  # limit_train_batches: 2 steps in each of 60 epochs
        ({"batch_size": 16, "max_steps": 100}, 5),
        ({"batch_size": 16, "max_steps": 4000, "given": {"epochs": -1}}, 200),  # these end an endless training
        ({"batch_size": 16, "given": {"epochs": None}}, 650),  # the Trainer makes 1,000 epochs
        ({"batch_size": 16, "given": {"epochs": -1}}, 39),  # 13 steps in the 60 epochs of the rule
    ],
)
def test_the_average_is_a_share_of_all_steps(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], length: int) -> None:
    monkeypatch.setattr(recipe_file, "RULES", {"scratch": replace(BACKBONE, ema_share=0.05)})
    recipe = recipe_for(205, **settings)
    assert recipe.ema_settings == {"decay": pytest.approx(1 - 1 / length, abs=1e-6), "tau": length}
    assert recipe.reasons["ema_tau"].startswith(f"averages about {length} steps, 5% of ")


class Steps(L.LightningModule):
    """A module of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.weight * batch.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate_grad_batches": 2},
        {"limit_train_batches": 0.5},
        {"limit_train_batches": 0.99, "accumulate_grad_batches": 3},
        {"limit_train_batches": 3, "accumulate_grad_batches": 2},
        {"limit_train_batches": 100},
        {"max_steps": 5},
        {"max_steps": 9, "max_epochs": -1},
        {"fast_dev_run": 2},
    ],
    ids=str,
)
def test_the_steps_are_those_that_the_trainer_makes(settings: dict[str, Any]) -> None:
    """Of 25 images in batches of 4, in 2 epochs."""
    trainer = L.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False} | settings,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Steps(), torch.utils.data.DataLoader(torch.ones(25), 4))
    batches = batches_of_epoch(25, 4, trainer.limit_train_batches)
    epochs = trainer.max_epochs or 1
    run = batches, trainer.accumulate_grad_batches, epochs, trainer.max_steps
    assert steps_of_run(*run) == trainer.global_step
    assert batches_of_run(*run) == trainer.fit_loop.epoch_loop.total_batch_idx + 1


@pytest.mark.parametrize(
    ("every", "interval", "max_steps"), [(1, 1.0, -1), (3, 1.0, -1), (1, 2, 2), (2, 0.3, -1), (1, 0.1, 1), (None, 9, -1)]
)
def test_the_first_validation_comes_when_the_trainer_has_it(
    every: int | None, interval: float, max_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 25 images in batches of 4."""
    seen: list[int] = []
    monkeypatch.setattr(Steps, "validation_step", lambda self, *_: seen.append(self.trainer.fit_loop.total_batch_idx + 1))
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=3, max_steps=max_steps, check_val_every_n_epoch=every, val_check_interval=interval,
        num_sanity_val_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Steps(), torch.utils.data.DataLoader(torch.ones(25), 4), torch.utils.data.DataLoader(torch.ones(1)))
    assert batches_to_validation(7, every, interval) == seen[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_images": 0}, "num_images is 0; expected a whole number, 1 or more"),
        ({"num_images": 5, "num_devices": 0}, "num_devices is 0"),
        ({"num_images": 5, "start": "weights"}, "unknown start 'weights'"),
        ({"num_images": 5, "given": {"max_epochs": 3}}, "unknown field of a recipe: 'max_epochs'.*epochs"),
        ({"num_images": 5, "given": {"optimizer": "adam"}}, "unknown optimizer 'adam'"),
        ({"num_images": 5, "given": {"lr": -0.1}}, "lr is -0.1; expected a number, 0 or more"),
        ({"num_images": 5, "given": {"lr": "auto"}}, "lr is 'auto'; expected a number"),
        ({"num_images": 5, "given": {"nominal_batch": 0}}, "nominal_batch is 0; expected a whole number, 1 or more"),
        ({"num_images": 5, "given": {"epochs": 2.5}}, "epochs is 2.5; expected a whole number, -1 or more"),
        ({"num_images": 5, "given": {"close_mosaic": -1}}, "close_mosaic is -1; expected a whole number, 0 or more"),
        ({"num_images": 5, "given": {"mosaic": 1.5}}, "mosaic is 1.5; expected a number from 0 to 1"),
        ({"num_images": 5, "given": {"ema_tau": -2}}, "ema_tau is -2; expected a number, 0 or more"),
    ],
)
def test_wrong_values_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_for(**settings)


def test_the_table_has_a_line_with_the_reason_of_each_setting() -> None:
    recipe = recipe_for(205, start="detector")
    text = recipe_table(recipe, {"lr": "model.lr", "epochs": "trainer.max_epochs"}, 205, "detector")
    head, *lines = text.splitlines()
    assert head.startswith(
        "recipe for 205 training images, from the weights of a detector: configs/finetune.yaml at twice its rate (optimizer"
    )
    assert [line.split()[:2] for line in lines] == [["model.lr", "0.01"], ["trainer.max_epochs", "30"]]
    assert lines[0].endswith("  on three small sets at least as good as 0.005")
    for given in ({"lr": 0.003}, {"optimizer": "adamw"}):
        head = recipe_table(recipe_for(205, start="detector", given=given), {"epochs": "x"}, 205, "detector").splitlines()[0]
        assert head.endswith("(optimizer and rate are not those that were measured)")
    assert all(recipe_for(images).reasons[name] for name in RECIPE_FIELDS for images in (205, 9000))
