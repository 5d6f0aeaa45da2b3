"""The made-up index of the benchmark has the images of the lists that it is compared with."""

from benchmarks.image_index import array_index, made_up_classes, path_list


def test_both_kinds_have_the_same_images() -> None:
    """The index holds out a tenth of them; each class has as many images as the next, or one less."""
    paths = path_list(100, 7)
    index = array_index(100, 7)
    assert [len(names) for _, names in made_up_classes(100, 7)] == [14, 14, 14, 15, 14, 14, 15]
    assert len(set(paths)) == 100
    assert 80 <= len(index) < 100
    assert {(str(index.path(n)), index.label(n)) for n in range(len(index))} <= set(paths)
