import numpy as np

from detector.text import (
    flatten,
    nearest_names,
    package_version,
    plural,
    score_text,
    short_duration,
    short_number,
    unknown_name,
    without_secrets,
)


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


def test_addresses_without_secrets() -> None:
    """A user may not know which signs of a password must be escaped."""
    hidden = {f"rtsp://me:{password}@h/a": "rtsp://***@h/a" for password in ("pw", "p@w", "p#w", "p?w", "p/w", "p:/w")}
    hidden |= {text: text for text in ("rtsp://10.0.0.5:554/a@b", "rtsp://[::1]:554/a", "http://h/a", "0", "-")}
    hidden["http://h:80/a?key=secret"] = "http://h:80/a?***"
    hidden["rtsp://h/user=me_password=secret_channel=1"] = "rtsp://h/user=me_password=***"
    assert {text: without_secrets(text) for text in hidden} == hidden


def test_short_numbers() -> None:
    values = [4.943, 0.1657, 12.34, 999.6, 1234.4, 123456.0, 1.234e9, 0.000123, -1.5, 0.0, float("inf"), 8.3e-5]
    texts = [short_number(value, 5) for value in values]
    assert texts == ["4.94", "0.166", "12.3", "1000", "1234", "1.2e5", "1.2e9", "1e-4", "-1.5", "0", "inf", "8e-5"]
    assert [short_number(value, 7) for value in (0.0083249, 8.325e-5)] == ["0.00832", "8.33e-5"]


def test_short_durations() -> None:
    texts = {0: "0s", 99: "99s", 99.7: "2m", 150: "2m", 5940: "99m", 6000: "1.7h", 3600 * 50: "50h"}
    texts |= {86400 * 4.5: "4.5d", 86400 * 400: "400d", 86400 * 4000: "11y"}
    assert {seconds: short_duration(seconds) for seconds in texts} == texts
