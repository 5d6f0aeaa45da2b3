from detector.text import counted


def test_one_is_not_many() -> None:
    assert [counted(n, "picture") for n in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
    assert [counted(n, "box has", "boxes have") for n in (0, 1, 2)] == ["0 boxes have", "1 box has", "2 boxes have"]
