from detector.text import flatten, package_version, plural


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
