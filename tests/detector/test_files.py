"""Atomic writes, errors that name the file and the remedy, and the files of a folder."""

import os
from pathlib import Path

import pytest

from detector.files import atomic_write, check_output, read_json, read_yaml, real_files, walk_folder


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as unfinished:
        unfinished.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_json_errors_name_file_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match=r"a\.json: no such file; give a list of images"):
        read_json(path, list, "a list of images")
    for text, message in (("{", "not JSON"), ("{}", "the JSON holds a dict, not a list")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"a\.json: {message}.*; give a list of images"):
            read_json(path, list, "a list of images")
    path.write_text("[1]")
    assert read_json(path, list, "a list of images") == [1]


def test_yaml_errors_name_file_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for content in (b"a: [", b"\xff\xfe1\x00", b"2024-99-99"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"(?s)a\.yaml: is not YAML .*; restore it"):
            read_yaml(path, "restore it")
    path.write_text("a: {b: 1}")
    assert read_yaml(path, "restore it") == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b]\nval: x\nnames: [b, a]\n", "the key 'names' is given twice, in lines 1 and 3; keep one"),
        ("data:\n  augment: {mosaic: 1, mosaic: 0}\n", "the key 'mosaic' is given twice, in line 2"),
        ("names:\n  0: a\n  0: b\n", "the key 0 is given twice, in lines 2 and 3"),
        ("a: 1\n'a': 2\n", "the key 'a' is given twice"),
        ("- {1: a, 1.0: b}\n", "the key 1.0 is given twice"),
        ("a: &x {b: 1}\nc: {<<: *x, d: 1, d: 2}\n", "the key 'd' is given twice, in line 2"),
    ],
)
def test_a_yaml_key_given_twice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.yaml: {message}"):
        read_yaml(tmp_path / "a.yaml", "restore it")


def test_yaml_anchors_and_merge_keys_still_work(tmp_path: Path) -> None:
    text = "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\ne: *x\nf: {<<: [*x, {g: 4}], <<: {h: 5}}\n"
    (tmp_path / "a.yaml").write_text(text)
    expected = {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}, "e": {"b": 1, "c": 2}, "f": {"b": 1, "c": 2, "g": 4, "h": 5}}
    assert read_yaml(tmp_path / "a.yaml", "restore it") == expected


def test_a_json_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in (
        ('{"annotations": [1], "images": [], "annotations": [2]}', "'annotations' is given 2 times in an entry with"),
        ('{"annotations": [{"id": 7, "bbox": [], "bbox": []}]}', "'bbox' is given 2 times in the entry with id 7"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"a\.json: the key {message}"):
            read_json(path, dict, "annotations")


def test_files_are_replaced_on_request_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    check_output(tmp_path / "new.txt", overwrite=False)
    check_output(tmp_path / "a.txt", overwrite=True)
    for path, overwrite, message in (
        (tmp_path / "a.txt", False, r"a\.txt already exists; .*--overwrite"),
        (tmp_path, True, "is a folder"),
        (tmp_path / "lost" / "a.txt", True, "lost: no such folder"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(path, overwrite)


def test_hidden_files_of_systems_and_viewers_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / ".cache"  # the name of the given folder does not count
    hidden = [
        "._a.jpg",
        ".DS_Store",
        "Thumbs.db",
        "__MACOSX/a.jpg",
        "@eaDir/deep/a.jpg",
        ".ipynb_checkpoints/a.jpg",
        "#recycle/a.jpg",
    ]
    for name in ["b.jpg", "sub/a.jpg", *hidden]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    walked = walk_folder(folder)
    assert walked.files == [folder / "b.jpg", folder / "sub/a.jpg"]
    assert walked.hidden == sorted(folder / name for name in hidden)
    assert walked.repeated == []


def test_each_real_file_comes_once_and_links_do_not_loop(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "set/images", tmp_path / "elsewhere"
    for path in (folder / "sub/real.jpg", elsewhere / "far.jpg", tmp_path / "set/labels/above.jpg", tmp_path / "file.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.link(folder / "sub/real.jpg", folder / "sub/second.jpg")
    links = {
        "a_link.jpg": "sub/real.jpg", "a_loop": ".", "b_loop": "..", "sub/c_loop": "../..", "d_same": "sub",
        "far": elsewhere, "far_again": elsewhere, "file.jpg": tmp_path / "file.jpg", "lost.jpg": "nowhere.jpg",
    }  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (elsewhere / "back").symlink_to(folder)
    (elsewhere / "loop").symlink_to(".")
    walked = walk_folder(folder)
    names = [str(path.relative_to(folder)) for path in walked.files]
    assert names == ["far/far.jpg", "file.jpg", "lost.jpg", "sub/real.jpg"]
    repeated = [
        "a_link.jpg",
        "a_loop",
        "b_loop",
        "d_same",
        "far/back",
        "far/loop",
        "far_again",
        "sub/c_loop",
        "sub/second.jpg",
    ]
    assert [str(path.relative_to(folder)) for path in walked.repeated] == repeated
    assert real_files([folder / "a_link.jpg", folder / "sub/real.jpg", folder / "lost.jpg"]) == [
        folder / "a_link.jpg",
        folder / "lost.jpg",
    ]
