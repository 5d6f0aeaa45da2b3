import numpy as np

from detector.text import flatten, nearest_names, package_version, plural, score_text, unknown_name


def test_plural() -> None:
    assert [plural(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [plural(n, "box has", "boxes have") for n in (0, 1, 2)] == ["0 boxes have", "1 box has", "2 boxes have"]


def test_flatten() -> None:
    nested = {"seed": 1, "data": {"augment": {"mosaic": 0.5}, "none": {}}}
    assert flatten(nested) == {"seed": 1, "data.augment.mosaic": 0.5}
    assert flatten(nested, " ") == {"seed": 1, "data augment mosaic": 0.5}


def test_package_version() -> None:
    assert package_version("torch") is not None
    assert package_version("a-package-that-nobody-has") is None


def test_scores_keep_three_digits_and_are_rounded_down() -> None:
    texts = {0.0: "0.0", 1.0: "1.0", 0.9999: "0.999", 0.57: "0.57", 0.01249: "0.0124", 1.237e-7: "1.23e-07"}
    assert {score: score_text(score) for score in texts} == texts
    assert score_text(np.float32(0.57)) == "0.57"  # which in binary is a little less
    assert [score_text(score) for score in (float("nan"), float("inf"))] == ["nan", "inf"]


def test_nearest_names_ignore_capitals_and_punctuation() -> None:
    variants = ["yolo26_n", "yolo26_s", "dyn_n"]
    assert nearest_names("YOLO26n", variants) == ["yolo26_n"]
    assert nearest_names("yolo26_nn", variants)[0] == "yolo26_n"
    assert nearest_names("resnet", variants) == []


def test_unknown_name() -> None:
    assert unknown_name("field", "experts", ["where", "num_experts"]) == (
        "unknown field 'experts'; did you mean num_experts? Choose one of where, num_experts"
    )
    assert unknown_name("field", 3, ["where"]) == "unknown field 3; choose one of where"
    many = [f"class {i}" for i in range(1000)]
    assert unknown_name("class", "class 77x", many).startswith("unknown class 'class 77x'; did you mean class 77?")
    assert len(unknown_name("class", "zebra", many)) < 1000
