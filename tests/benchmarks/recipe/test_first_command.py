"""The first command of the README against the reference's own settings: what is equal, and what differs."""

from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from benchmarks.recipe.first_command import ARMS, FIRST, FROM_SCRATCH, SAME_START, arm_arguments
from detector.text import flatten

ROOT = Path(__file__).parents[3]
SETTINGS = ("optimizer", "lr", "weight_decay", "nominal_batch", "warmup_epochs", "warmup_bias_lr")


@pytest.fixture(scope="module")
def configs() -> dict[str, dict[str, object]]:
    """The merged settings of each arm, by name; of 6 classes."""
    options = Namespace(config=str(ROOT / "configs/data/bccd.yaml"), backbone="", weights="lite0.safetensors", image_size=96)
    merged = {}
    for arm in ARMS:
        arguments = arm_arguments(arm, options, classes=6, epochs=8, seed=2)
        files = [word.removeprefix("--config=") for word in arguments if word.startswith("--config=")]
        settings: dict[str, object] = {}
        for file in ("configs/base.yaml", *files):
            settings |= flatten(yaml.safe_load((ROOT / file).read_text()))
        merged[arm] = settings | dict(word[2:].split("=", 1) for word in arguments if not word.startswith("--config="))
    return merged


def test_all_arms_have_the_same_data_size_epochs_and_seed(configs: dict[str, dict[str, object]]) -> None:
    for name, value in (("data.image_size", "96"), ("trainer.max_epochs", "8"), ("seed_everything", "2")):
        assert [configs[arm][name] for arm in ARMS] == [value] * 3
    assert len({str(configs[arm]["data.root"]) for arm in ARMS}) == 1
    assert [configs[arm].get("model.backbone_weights") for arm in ARMS] == ["lite0.safetensors"] * 2 + [None]


def test_the_first_command_chooses_by_itself_and_the_others_have_the_settings_of_the_reference(
    configs: dict[str, dict[str, object]],
) -> None:
    assert {configs[FIRST][f"model.{name}"] for name in SETTINGS} == {"auto"}
    for arm in (SAME_START, FROM_SCRATCH):
        values = [str(configs[arm][f"model.{name}"]) for name in SETTINGS]
        assert values == ["adamw", "0.001", "0.0005", "64", "3.0", "0.0"]
        assert [str(configs[arm][f"data.augment.{name}"]) for name in ("mosaic", "close_mosaic")] == ["1.0", "10"]
        assert str(configs[arm]["ema.tau"]) == "2000"
