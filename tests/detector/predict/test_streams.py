"""Streams: the newest frame, drop counts, latency, reconnection, and images through a pipe."""

import io
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.predict import stream_sources
from detector.predict.stream_sources import CaptureSource, PipeSource, find_source
from detector.predict.streams import Stream, StreamError

IMAGE = np.zeros((4, 6, 3), np.uint8)


class Camera:
    """A made-up source: a frame every ``period`` seconds, each with its number as its gray; None where ``breaks`` says."""

    name, can_reconnect, close_seconds = "a camera", True, 6.0

    def __init__(self, period: float, num_frames: int, breaks: tuple[int, ...] = (), failing_opens: int = 0) -> None:
        self.period, self.num_frames, self.breaks, self.failing_opens = period, num_frames, set(breaks), failing_opens
        self.number, self.opened, self.is_closed = 0, 0, False

    def open(self) -> None:
        self.opened += 1
        if self.opened > 1 and self.failing_opens:
            self.failing_opens -= 1
            raise StreamError("no answer")

    def read(self) -> np.ndarray | None:
        if self.number in self.breaks:
            self.breaks.remove(self.number)
            return None
        if self.number == self.num_frames:
            self.can_reconnect = False
            return None
        time.sleep(self.period)
        self.number += 1
        return np.full_like(IMAGE, self.number - 1)

    def close(self) -> None:
        self.is_closed = True


def test_a_slow_user_gets_the_newest_frame_and_the_others_are_counted() -> None:
    """The work of 40 ms lets ten times as many frames pass. Latency is that of one frame, and does not grow."""
    camera, taken, latencies = Camera(0.004, 100), [], []
    with Stream(camera) as stream:
        for frame in stream:
            assert (frame.image == frame.number).all()
            latencies.append(time.time() - frame.captured_at)
            taken.append(frame.number)
            time.sleep(0.04)
    assert stream.num_read == 100 == stream.num_taken + stream.num_dropped
    assert stream.num_taken == len(taken) < 30
    assert taken == sorted(set(taken))
    assert taken[-1] == 99  # the last one is never lost
    assert np.median(latencies) < 0.02
    assert camera.is_closed


def test_every_frame_is_taken_on_request_and_by_a_fast_user() -> None:
    for every_frame, period, work in ((True, 0.0, 0.002), (False, 0.01, 0.0)):
        with Stream(Camera(period, 20), every_frame) as stream:
            numbers = [(time.sleep(work), frame.number)[1] for frame in stream]
        assert numbers == list(range(20))
        assert (stream.num_read, stream.num_dropped) == (20, 0)


def test_a_lost_connection_is_made_again() -> None:
    messages: list[str] = []
    camera = Camera(0.0, 10, breaks=(3, 7), failing_opens=2)
    with Stream(camera, every_frame=True, reconnects=3, backoff=0.001, log=messages.append) as stream:
        assert [frame.number for frame in stream] == list(range(10))
    assert stream.num_reconnects == 2
    pauses = [message.rpartition(" in ")[2] for message in messages]
    assert pauses == ["0.001 s", "0.002 s", "0.004 s", "0.001 s"]  # doubled, and short again after a frame
    assert messages[0].startswith("a camera: the connection is lost; attempt 1 of 3")


def test_after_the_last_attempt_the_stream_is_an_error() -> None:
    with Stream(Camera(0.0, 10, breaks=(2,), failing_opens=9), True, reconnects=2, backoff=0.001) as stream:
        numbers = []
        with pytest.raises(StreamError, match="a camera: the connection is lost, and 2 attempts to connect again failed"):
            numbers.extend(frame.number for frame in stream)
    assert stream.num_read == 2
    stream = Stream(Camera(0.0, 10, breaks=(2,)), True, reconnects=0)
    with stream, pytest.raises(StreamError, match=r"a camera: the connection is lost$"):
        list(stream)


def test_a_stream_is_read_within_with_and_once() -> None:
    """Without ``with`` nothing reads the source, and waiting for its frames would have no end."""
    stream = Stream(Camera(0.0, 3), every_frame=True)
    with pytest.raises(StreamError, match="the stream of a camera is not open; iterate over it within: with"):
        next(iter(stream))
    with stream:
        assert len(list(stream)) == 3
    with pytest.raises(StreamError, match="the stream of a camera was opened before; make a new one"):
        stream.__enter__()


def test_an_idle_pipe_can_be_stopped_at_once(images: list[np.ndarray]) -> None:
    """It waits for an image that may never come. What is wrong with the pipe after the stop is no error."""
    reader, writer = os.pipe()
    os.write(writer, encoded(".png", images[0]))
    with open(reader, "rb", buffering=0) as file, Stream(PipeSource(file)) as stream:
        for frame in stream:
            assert frame.image.shape == images[0].shape
            stream.stop()
            started = time.monotonic()
        stream.__exit__(None, None, None)
        assert time.monotonic() - started < 3
        os.close(writer)  # the reader can end, before its file is closed
        stream._thread.join()
    with Stream(PipeSource(io.BytesIO())) as stream:
        stream._thread.join()
        stream.stop()
        assert list(stream) == []


def test_a_stream_can_be_stopped_at_any_time() -> None:
    camera = Camera(0.001, 10**6)
    with Stream(camera) as stream:
        for frame in stream:
            if frame.number > 5:
                threading.Timer(0.01, stream.stop).start()
    assert stream.num_read == stream.num_taken + stream.num_dropped
    with Stream(Camera(0.0, 100), every_frame=True) as stream:
        next(iter(stream))
        time.sleep(0.02)
    assert (stream.num_read, stream.num_dropped) == (1, 0)  # what came while the user stopped does not count
    assert not any(thread.name == "reader of a camera" for thread in threading.enumerate())


class Chunks:
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self.file, self.size = io.BytesIO(content), size

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, self.size))


def encoded(suffix: str, image: np.ndarray) -> bytes:
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image, flags)[1].tobytes()


@pytest.fixture
def images() -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (16, 24 + n, 3), np.uint8) for n in range(3)]


def all_of(source: PipeSource) -> Iterator[np.ndarray]:
    while (image := source.read()) is not None:
        yield image


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".ppm", ".pgm"])
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_images_come_through_a_pipe(images: list[np.ndarray], suffix: str, size: int) -> None:
    content = b"".join(encoded(suffix, image if suffix != ".pgm" else image[..., 0]) for image in images)
    source = PipeSource(Chunks(content, size))
    read = list(all_of(source))
    assert [image.shape for image in read] == [image.shape for image in images]
    if suffix == ".png":
        np.testing.assert_array_equal(read[2][..., ::-1], images[2])
    assert source.num_unreadable == 0


def test_padding_between_images_is_no_image(images: list[np.ndarray]) -> None:
    """Cameras fill frames with zeros, and ``echo`` adds line ends."""
    content = b"\0\0\n".join([b"", *(encoded(suffix, images[0]) for suffix in (".jpg", ".ppm", ".png")), b""])
    source = PipeSource(Chunks(content, 50))
    assert [image.shape for image in all_of(source)] == [(16, 24, 3)] * 3
    assert source.num_unreadable == 0


def test_damaged_images_of_a_pipe_are_counted(images: list[np.ndarray]) -> None:
    png, jpeg = encoded(".png", images[0]), encoded(".jpg", images[1])
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    source = PipeSource(Chunks(bytes(damaged) + jpeg + png + jpeg[:-30], 50))
    assert [image.shape for image in all_of(source)] == [(16, 25, 3), (16, 24, 3)]
    assert source.num_unreadable == 2  # the first one is damaged, and the last one ends too early
    for wrong in (b"RIFF....", b"P3\n1 1\n255\n1 2 3\n"):
        with pytest.raises(StreamError, match=r"has b'.*where a JPEG, PNG or binary PNM \(P5 or P6\) image starts"):
            PipeSource(Chunks(wrong, 50)).read()


def test_a_pipe_without_a_whole_image_is_an_error(images: list[np.ndarray]) -> None:
    for content in (b"", b"\n\0", encoded(".jpg", images[0])[:-30], encoded(".png", images[0])[:40]):
        with pytest.raises(StreamError, match=r"ended without a whole JPEG, PNG .*; check the program that writes"):
            PipeSource(Chunks(content, 50)).read()


def test_sixteen_bits_through_a_pipe_are_scaled_as_in_training() -> None:
    image = np.arange(0, 4096, 32, np.uint16).reshape(8, 16)
    source = PipeSource(io.BytesIO(encoded(".png", image)), sixteen_bit_range=(0, 4095))
    np.testing.assert_array_equal(source.read()[..., 0], image // 16)
    stream = stream_sources.open_stream("-", sixteen_bit_range=(0, 4095))
    assert stream.source.sixteen_bit_range == find_source("-", (0, 4095)).sixteen_bit_range == (0, 4095)
    with pytest.raises(ValueError, match=r"sixteen_bit_range is \(9, 3\)"):
        stream_sources.open_stream(0, sixteen_bit_range=(9, 3))


def test_a_jpeg_that_is_cut_anywhere_in_its_header_takes_no_other_with_it() -> None:
    """Cut two bytes before the end of a segment, that segment would end at the first marker of the next image."""
    whole = encoded(".jpg", np.full((8, 8, 3), 90, np.uint8))
    for cut in range(3, whole.index(b"\xff\xda") + 16):
        source = PipeSource(io.BytesIO(whole + whole[:cut] + whole))
        assert (len(list(all_of(source))), source.num_unreadable) == (2, 1), cut


def test_an_image_that_is_cut_in_its_thumbnail_counts_once(images: list[np.ndarray]) -> None:
    """Also if its EXIF data would end at bytes of the next image's thumbnail that look like a marker."""
    whole, thumbnail = (cv2.imencode(".jpg", image)[1].tobytes() for image in images[:2])
    # A TIFF header, an empty directory, and the one of the thumbnail: its place (44) and its length.
    directories = struct.pack("<4sIHIHHHIIHHIII", b"II*\0", 8, 0, 14, 2, 513, 4, 1, 44, 514, 4, 1, len(thumbnail), 0)
    exif = b"Exif\0\0" + directories + thumbnail + bytes(30)
    photo = whole[:2] + b"\xff\xe1" + (2 + len(exif)).to_bytes(2, "big") + exif + whole[2:]
    end = 6 + len(exif)
    for cut in (
        12,
        32,
        60,
        300,
        end - 33,
        end - 30,
        end - 20,
        end,
        end - photo.index(b"\xff\x00"),
        end - photo.index(b"\xff\xd9"),
    ):
        source = PipeSource(Chunks(photo + photo[:cut] + photo + whole[:100] + whole[:100] + whole, 200))
        assert [image.shape for image in all_of(source)] == [images[0].shape] * 3, cut
        assert source.num_unreadable == 3, cut


@pytest.mark.parametrize(("cut_suffix", "cuts"), [(".jpg", (-300, -40, -1)), (".png", (-500, -12, -4, -1))])
def test_a_truncated_image_takes_none_of_another_format_with_it(
    images: list[np.ndarray], cut_suffix: str, cuts: tuple[int, ...]
) -> None:
    """The next image is not taken for its compressed data, nor for its last bytes."""
    for suffix in (".jpg", ".png", ".ppm"):
        first, second = encoded(cut_suffix, images[0]), encoded(suffix, images[1])
        for cut in cuts:
            source = PipeSource(Chunks(first[:cut] + second + second, 50))
            read = [image.shape[1] for image in all_of(source)], source.num_unreadable
            assert read == ([25, 25], 1), (suffix, cut)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".ppm"])
@pytest.mark.parametrize("cut", [1, 25, 60, -40])
def test_a_truncated_image_takes_no_other_with_it(images: list[np.ndarray], suffix: str, cut: int) -> None:
    """Cut within the header, a segment, and the pixels; at the start, within and at the end of the pipe."""
    files = [encoded(suffix, image) for image in images]
    truncated = files[0][:cut]
    if suffix == ".ppm":  # nothing marks where it ends: it takes the start of the next image for its pixels
        source = PipeSource(Chunks(files[0] + files[1] + files[2] + truncated, 50))
        assert [image.shape for image in all_of(source)] == [image.shape for image in images]
        assert source.num_unreadable == 1
        return
    source = PipeSource(Chunks(files[0] + truncated + files[1] + truncated + files[2] + truncated, 50))
    assert [image.shape for image in all_of(source)] == [image.shape for image in images]
    assert source.num_unreadable == 3


def test_sources_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"open_stream: unknown argument evry_frame; did you mean every_frame\?"):
        stream_sources.open_stream(0, evry_frame=True)
    assert isinstance(find_source("-"), PipeSource)
    assert (find_source("0").address, find_source(1).name) == (0, "camera 1")
    source = find_source("rtsp://me:secret@10.0.0.5:554/live")
    assert source.name == "rtsp://***@10.0.0.5:554/live"
    source = find_source("RTSP://me:p@ss@10.0.0.5/a@b?key=secret")
    assert (source.name, source.address) == ("rtsp://***@10.0.0.5/a@b?***", "rtsp://me:p@ss@10.0.0.5/a@b?key=secret")
    (tmp_path / "camera").symlink_to("/dev/video3")
    assert (find_source("/dev/video2").address, find_source(str(tmp_path / "camera")).address) == (2, 3)
    os.mkfifo(tmp_path / "fifo")
    for text, message in (
        ("", r"the stream is ''; expected a camera"),
        ("file:///a.mp4", "has the scheme file; .*; a file is given by its path, as SOURCE"),
        ("rtps://me:secret@a", r"the stream rtps://\*\*\*@a has the scheme rtps"),
        (str(tmp_path), "is a folder; give it as SOURCE, without --stream"),
        (str(tmp_path / "fifo"), r"fifo is a named pipe; read it as standard input: --stream - < .*fifo"),
        ("-1", "the stream is -1; cameras count from 0"),
        ("ftp://a/b", "has the scheme ftp; expected one of rtsp"),
        ("http://a/b.jpg?size=1", "is the address of an image; download it, and give its path as SOURCE"),
        (str(__file__), "is a file; give it as SOURCE, without --stream"),
        ("webcam", r"the stream is 'webcam'; expected a camera \(0 is the first\), an address"),
    ):
        with pytest.raises(ValueError, match=message):
            find_source(text)


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCapture:
        isOpened: Callable = staticmethod(lambda: False)
        set = release = staticmethod(lambda *_: None)

    monkeypatch.setattr(stream_sources.cv2, "VideoCapture", lambda *_: NoCapture())
    with pytest.raises(StreamError, match=r"camera 7 cannot be opened; check that it is connected"):
        Stream(CaptureSource(7)).__enter__()
    with pytest.raises(StreamError, match=r"rtsp://\*\*\*@a/b cannot be opened; check the address.*waited at most 5 s"):
        Stream(find_source("rtsp://me:pw@a/b")).__enter__()
