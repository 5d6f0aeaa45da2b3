"""Files, folders, patterns and videos: each is read once, and unreadable ones are named."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.predict.sources import find_sources


def write_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), value, np.uint8))
    return path


def write_video(path: Path, frames: int = 5, size: tuple[int, int] = (48, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size[::-1])
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((*size, 3), (0, 0, 40 * number), np.uint8))  # BGR
    writer.release()
    return path


def test_every_file_is_taken_once(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "deep" / "b.JPG")
    write_image(tmp_path / "deep" / "a.png")
    write_video(tmp_path / "c.avi")
    (tmp_path / "notes.txt").touch()
    sources = find_sources([str(tmp_path / "a.png"), str(tmp_path), str(tmp_path / "**" / "*.png"), str(tmp_path / "deep")])
    names = [source.name.as_posix() for source in sources.files]
    assert names == ["a.png", "c.avi", "deep/a.png", "deep/b.JPG"]
    assert sources.left_out == [tmp_path / "notes.txt"]
    assert not sources.unreadable
    assert sources.num_frames == 8
    assert [(f.file.name.name, f.number) for f in sources.frames()] == [
        ("a.png", 0),
        *(("c.avi", number) for number in range(5)),
        ("a.png", 0),
        ("b.JPG", 0),
    ]


def test_a_name_with_brackets_is_a_file(tmp_path: Path) -> None:
    path = write_image(tmp_path / "scan [1].png")
    assert [source.path for source in find_sources([str(path)]).files] == [path]


def test_files_of_one_name_get_numbers(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / name) for name in ("x/a.png", "y/a.png", "y/a.jpg")]
    names = [source.name.name for source in find_sources([str(path) for path in paths]).files]
    assert names == ["a.png", "a-2.png", "a-3.jpg"]


def test_frames_are_rgb_and_videos_know_their_rate(tmp_path: Path) -> None:
    sources = find_sources([str(write_video(tmp_path / "c.avi"))])
    assert sources.files[0].frame_rate == 10
    last = list(sources.frames())[-1].image
    assert last.shape == (48, 64, 3)
    assert np.abs(last[10, 10].astype(int) - (160, 0, 0)).max() < 10


def test_unreadable_inputs_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.mp4").write_text("no video")
    sources = find_sources([str(tmp_path), str(tmp_path / "lost.png"), str(tmp_path / "*.jpeg")])
    assert len(list(sources.frames())) == 1
    assert [reason.split(": ")[0].rsplit("/")[-1] for reason in sources.unreadable] == [
        "c.mp4",
        "lost.png",
        "*.jpeg",
        "b.png",
    ]
    with pytest.raises(ValueError, match=r"nothing to read: .*lost\.png: there is no such file"):
        find_sources([str(tmp_path / "lost.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images or videos in .*empty"):
        find_sources([str(tmp_path / "empty")])


def test_a_video_that_ends_early_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "c.avi", frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sources = find_sources([str(path)])
    frames = len(list(sources.frames()))
    assert 0 < frames < 40
    if sources.files[0].num_frames == 40:  # where the header has the count
        assert "ends after" in sources.unreadable[0]
