"""The facts about weights."""

from pathlib import Path

from detector import build_detector
from detector.weights import Weights, WeightsInfo, saved_license


def test_class_towers_keep_their_width() -> None:
    """With 80 classes the small variants have class towers of 80 channels, which a fine-tuning with fewer classes keeps."""
    weights = Weights(build_detector("yolo26_n", 80).state_dict(), WeightsInfo("yolo26_n"), Path("w"), "")
    assert weights.overrides_for("yolo26_n", 80) == {}
    assert weights.overrides_for("dyn_n", 3) == {"class_channels": 80}
    wide = build_detector("yolo26_n", 3, class_channels=80).state_dict()
    assert wide["head.one2one.cls.0.4.weight"].shape == (3, 80, 1, 1)


def test_the_license_has_an_old_and_a_new_key() -> None:
    assert saved_license({"licence": "MIT"}) == "MIT"
    assert saved_license({"license": "MIT", "licence": "CC-BY-4.0"}) == "MIT"
    assert saved_license({"license": None}) is None
    assert saved_license({}) is None
