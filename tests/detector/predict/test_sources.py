"""Files, folders, patterns and videos: each is read once, and unreadable ones are named."""

import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.predict.folder import MARK
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
    (tmp_path / "d.tga").touch()
    sources = find_sources([str(tmp_path), str(tmp_path / "d.tga")])  # given by its own path, it is read
    assert [file.path.name for file in sources.files] == ["a.png", "b.png", "d.tga"]
    assert sources.left_out == []
    with pytest.raises(ValueError, match=r"nothing to read: .*lost\.png: there is no such file"):
        find_sources([str(tmp_path / "lost.png")])
    for text, message in (
        ("rtsp://me:pw@a/b", r"^[^w]*is an address; download .* A live stream is --stream rtsp://\*\*\*@a/b"),
        ("http://a/b.jpg?x=1", "give its path$"),
        ("0", "a camera is --stream 0"),
    ):
        with pytest.raises(ValueError, match=message):
            find_sources([text])
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


UNEVEN = [0.0, 0.1, 0.2, 1.0, 1.05]


def write_gif(path: Path, durations: list[int]) -> Path:
    """Write an animated GIF; ``durations`` are in milliseconds."""
    frames = [Image.new("RGB", (64, 48), (40 * number,) * 3) for number in range(len(durations))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations)
    return path


def element(name: str, content: bytes) -> bytes:
    """Return an element of Matroska, in an encoding with eight bytes for its size."""
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def number(name: str, value: int) -> bytes:
    return element(name, value.to_bytes(8, "big"))


def write_matroska(path: Path, times: list[float]) -> Path:
    """Write a Matroska video of JPEG frames, each with its time in seconds. Its header has neither count nor rate."""
    frames = [cv2.imencode(".jpg", np.full((48, 64, 3), 40 * n, np.uint8))[1].tobytes() for n in range(len(times))]
    head = element("1A45DFA3", element("4282", b"matroska") + number("4287", 4) + number("4285", 2))
    size = element("E0", number("B0", 64) + number("BA", 48))
    track = element("AE", number("D7", 1) + number("73C5", 1) + number("83", 1) + element("86", b"V_MJPEG") + size)
    blocks = [b"\x81" + round(1000 * time).to_bytes(2, "big") + b"\x80" + frame for time, frame in zip(times, frames)]
    cluster = element("1F43B675", number("E7", 0) + b"".join(element("A3", block) for block in blocks))
    info = element("1549A966", number("2AD7B1", 1_000_000))
    path.write_bytes(head + element("18538067", info + element("1654AE6B", track) + cluster))
    return path


@pytest.mark.parametrize("kind", ["gif", "mkv"])
def test_each_frame_has_its_own_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    write_gif(path, [100, 100, 800, 50, 300]) if kind == "gif" else write_matroska(path, UNEVEN)
    sources = find_sources([str(path)])
    assert [frame.seconds for frame in sources.frames()] == pytest.approx(UNEVEN, abs=2e-3)
    assert sources.files[0].frame_rate == pytest.approx(20)  # for the smallest gap
    assert not sources.unreadable  # the unknown count of frames is no fault


def test_an_even_rate_is_found_without_a_header(tmp_path: Path) -> None:
    sources = find_sources([str(write_matroska(tmp_path / "a.mkv", [n / 8 for n in range(6)]))])
    assert sources.files[0].frame_rate == pytest.approx(8)
    assert sources.files[0].num_frames == 0


def test_the_videos_of_phones_are_upright(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    writer.write(np.full((48, 64, 3), 100, np.uint8))
    writer.release()
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44  # after flags, times, number, duration, layer and volume
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    (frame,) = find_sources([str(tmp_path / "a.mp4")]).frames()
    assert frame.image.shape == (64, 48, 3)


def test_a_gif_of_one_image_is_an_image(tmp_path: Path) -> None:
    (file,) = find_sources([str(write_gif(tmp_path / "a.gif", [100]))]).files
    assert not file.is_video


def test_a_video_of_an_unknown_codec_is_named(tmp_path: Path) -> None:
    content = write_matroska(tmp_path / "a.mkv", [0.0]).read_bytes()
    (tmp_path / "a.mkv").write_bytes(content.replace(b"V_MJPEG", b"V_OTHER"))
    with pytest.raises(ValueError, match=r"a\.mkv: (has no images|is not a video) .*convert it"):
        find_sources([str(tmp_path / "a.mkv")])


def test_of_several_pages_the_first_is_taken_and_that_is_counted(tmp_path: Path) -> None:
    pages = [Image.new("L", (30, 20), value) for value in (50, 100)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.tif")
    sources = find_sources([str(tmp_path)])
    assert [frame.image[0, 0, 0] for frame in sources.frames()] == [50, 50]
    assert sources.first_only == [tmp_path / "a.tif"]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "._a.png")
    sources = find_sources([str(tmp_path)])
    assert ([file.path.name for file in sources.files], sources.hidden) == (["a.png"], [tmp_path / "._a.png"])


def names_of(inputs: list[Path | str], out: Path | None = None) -> list[str]:
    return [file.path.name for file in find_sources([str(path) for path in inputs], out).files]


@pytest.mark.parametrize("inside", [".", "out", "deep/old"])
def test_what_predict_has_written_is_no_input(tmp_path: Path, inside: str) -> None:
    photos = tmp_path / "photos"
    write_image(photos / "a.png")
    out = photos / inside
    write_image(out / "pictures" / "a.jpg")
    write_image(out / "crops" / "cat" / "a_0.png")
    assert sorted(names_of([photos])) == ["a.jpg", "a.png", "a_0.png"]  # no run has marked the folder
    assert names_of([photos], out) == ["a.png"]  # of this run
    (out / "predictions.json").write_text(MARK + "w.ckpt")
    sources = find_sources([str(photos)], tmp_path / "elsewhere")
    assert [file.path.name for file in sources.files] == ["a.png"]
    assert {path.name for path in sources.outputs} == {"a.jpg", "a_0.png"}
    for pattern in (photos / "**" / "*.png", tmp_path / "*"):
        assert names_of([pattern]) == ["a.png"]
    (tmp_path / "link").symlink_to(out / "pictures")
    assert names_of([photos, tmp_path / "**"]) == ["a.png"]
    assert names_of([out / "pictures"]) == ["a.jpg"]  # who names it means it
    assert names_of([out / "pictures" / "a.jpg"]) == ["a.jpg"]
    with pytest.raises(ValueError, match="is in the output of this run; choose another --out"):
        find_sources([str(out / "pictures" / "a.jpg")], Path(os.path.relpath(out)))


def test_folders_that_are_only_named_like_outputs_are_inputs(tmp_path: Path) -> None:
    write_image(tmp_path / "pictures" / "a.png")
    (tmp_path / "predictions.json").write_text('{"images": []}')
    assert names_of([tmp_path]) == ["a.png"]


def test_names_of_outputs_differ_on_every_system(tmp_path: Path) -> None:
    """Names that differ in case or in the form of their accents are one file on some systems; long ones are shortened."""
    names = ["x/a.png", "y/A.jpg", "y/\u00e9.png", "z/e\u0301.png", f"{'long' * 60}.png", f"{'long' * 60}.jpg"]
    paths = [write_image(tmp_path / name) for name in names]
    outputs = [file.name.name for file in find_sources([str(path) for path in paths]).files]
    assert outputs[:4] == ["a.png", "A-2.jpg", "\u00e9.png", "e\u0301-2.png"]
    assert all(len(os.fsencode(name)) <= 200 for name in outputs)
    assert len({Path(name).stem for name in outputs}) == 6


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode there")
@pytest.mark.parametrize("name", [os.fsdecode(b"\xff"), "100%d", "two\nlines", "caf\u00e9"])
def test_files_with_any_name_are_read(tmp_path: Path, name: str) -> None:
    shutil.move(write_image(tmp_path / "a.png", 100), tmp_path / f"{name}.png")
    shutil.move(write_video(tmp_path / "a.avi", frames=2), tmp_path / f"{name}.avi")
    sources = find_sources([str(tmp_path)])
    assert len(list(sources.frames())) == 3
    assert not sources.unreadable
