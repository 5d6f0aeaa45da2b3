from detector.text import plural


def test_one_is_not_many() -> None:
    assert [plural(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [plural(n, "box has", "boxes have") for n in (0, 1, 2)] == ["0 boxes have", "1 box has", "2 boxes have"]
