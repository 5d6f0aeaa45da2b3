"""Atomic writes, and errors that name the file and the remedy."""

from pathlib import Path

import pytest

from detector.files import atomic_write, check_output, read_json, read_yaml


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
