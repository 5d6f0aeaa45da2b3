"""The facts about weights."""

from pathlib import Path

import pytest

from detector import build_detector
from detector.weights import Weights, WeightsInfo, saved_license


def test_class_towers_keep_their_width() -> None:
    """With 80 classes the small variants have class towers of 80 channels, which a fine-tuning with fewer classes keeps."""
    weights = Weights(build_detector("yolo26_n", 80).state_dict(), WeightsInfo("yolo26_n"), Path("w"), "")
    assert weights.overrides_for("yolo26_n", 80) == {}
    assert weights.overrides_for("dyn_n", 3) == {"class_channels": 80}
    wide = build_detector("yolo26_n", 3, class_channels=80).state_dict()
    assert wide["head.one2one.cls.0.4.weight"].shape == (3, 80, 1, 1)


@pytest.mark.parametrize(
    ("facts", "description"),
    [
        ({"best_f1_thresholds": {"one2one": 0.01237}, "metrics": {"val/AP": 0.5}}, "0.01237"),
        ({"best_f1_thresholds": {"one2one": None}, "metrics": {"val/AP": 0.0}}, "none, because no detection was right"),
        ({"best_f1_thresholds": {"one2many": 0.5}}, "unknown, because the file has none for the branch one2one"),
        ({"metrics": {"val/AP": 0.5}}, "unknown, because the file has none for the branch one2one"),
        ({}, "unknown, because the file records no validation"),
    ],
)
def test_the_threshold_of_the_best_f1_or_why_there_is_none(facts: dict, description: str) -> None:
    assert WeightsInfo("yolo26_n", **facts).describe_best_f1("one2one").startswith(description)


def test_the_license_has_an_old_and_a_new_key() -> None:
    assert saved_license({"licence": "MIT"}) == "MIT"
    assert saved_license({"license": "MIT", "licence": "CC-BY-4.0"}) == "MIT"
    assert saved_license({"license": None}) is None
    assert saved_license({}) is None
