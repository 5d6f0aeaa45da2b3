"""``python -m detector predict CKPT --stream``: JSON lines, options that do not fit, and a clean end."""

import io
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detector.__main__ import main
from detector.commands import stream as stream_command
from detector.predict import Detections
from detector.predict.stream_sources import PipeSource
from detector.predict.streams import Stream, StreamError
from tests.detector.commands.test_predict import SETTINGS, checkpoint  # noqa: F401  a fixture
from tests.detector.predict.test_streams import Camera


def use_source(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.setattr(stream_command, "find_source", lambda name, sixteen_bit_range: source)
    monkeypatch.setattr(stream_command.os, "isatty", lambda descriptor: False)  # as pytest -s in a terminal would be one


def test_lines_of_a_pipe(
    checkpoint: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    images = [np.random.default_rng(n).integers(0, 256, (40, 60, 3), np.uint8) for n in range(3)]
    files = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
    content = files[0][:-40] + b"".join(files)
    use_source(monkeypatch, PipeSource(io.BytesIO(content), "standard input"))
    out = tmp_path / "new/found.jsonl"
    assert main(["predict", checkpoint, "--stream", "-", "--every_frame", *SETTINGS, "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["frame"], line["dropped"], line["height"], line["width"]) for line in lines] == [
        (n, 0, 40, 60) for n in range(3)
    ]
    assert all(len(line["objects"]) == 4 and 0 < line["latency"] < 60 for line in lines)
    assert set(lines[0]["objects"][0]) == {"box", "score", "label", "name", "category_id"}
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "standard input: 3 frames in" in printed.err
    assert "3 of them with results, 0 dropped for newer ones, 0 reconnections; latency" in printed.err
    assert "12 objects; 1 image could not be decoded and left out" in printed.err
    with pytest.raises(SystemExit, match=r"found\.jsonl already exists"):
        main(["predict", checkpoint, "--stream", "-", "--out", str(out)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: signal.Signals
) -> None:
    """The frame at hand is finished, and all frames are accounted for."""
    use_source(monkeypatch, Camera(0.001, 10**6))
    before = signal.getsignal(number)

    class Killer(BlindPredictor):
        def __call__(self, images: list[np.ndarray], **_: Any) -> list[Any]:
            if images[0][0, 0, 0] > 3:
                os.kill(os.getpid(), number)
            return super().__call__(images)

    assert stream_command.run_stream(options(), Killer(), {"tile": None}) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) >= 1
    assert f"{len(printed.out.splitlines())} of them with results" in printed.err
    assert signal.getsignal(number) == before


def test_a_closed_output_is_a_clean_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    use_source(monkeypatch, Camera(0.0, 10**6))
    monkeypatch.setattr(stream_command, "json_line", lambda *_: (_ for _ in ()).throw(BrokenPipeError))
    monkeypatch.setattr(stream_command.os, "dup2", lambda *_: None)
    monkeypatch.setattr(stream_command.sys.stdout, "fileno", lambda: 1, raising=False)
    assert stream_command.run_stream(options(), BlindPredictor(), {"tile": None}) == 0
    assert "1 of them with results" in capsys.readouterr().err


class NoCamera(Camera):
    def open(self) -> None:
        raise StreamError("it is not there")


def test_a_stream_that_cannot_be_opened_leaves_the_file_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_source(monkeypatch, NoCamera(0.0, 1))
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("kept")
    for out in (old, new):
        with pytest.raises(StreamError, match="it is not there"):
            stream_command.run_stream(options(out=out), BlindPredictor(), {"tile": None})
    assert (old.read_text(), new.exists()) == ("kept", False)


def test_frames_of_one_tile_are_named_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """They are no error: images of several sizes may come through one pipe."""
    use_source(monkeypatch, Camera(0.0, 3))  # of 4 x 6
    for tile, number in (((4, 6), 1), ((4, 5), 0), ((3, 6), 0)):
        stream_command.find_source("0", (0, 65535)).number = 0
        assert stream_command.run_stream(options(every_frame=True), BlindPredictor(), {"tile": tile}) == 0
        printed = capsys.readouterr()
        assert len(printed.out.splitlines()) == 3
        assert printed.err.count("--tile 4 6 makes no difference for frames of 4 x 6 (height x width)") == number


def test_the_sixteen_bit_range_of_the_predictor_reaches_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = []
    monkeypatch.setattr(stream_command, "find_source", lambda name, limits: ranges.append(limits) or Camera(0.0, 1))
    stream_command.run_stream(options(), BlindPredictor(), {"tile": None})
    assert ranges == [(0, 4095)]


def test_totals_take_no_memory_of_a_long_stream() -> None:
    totals, detections = stream_command.StreamTotals(), nothing_found()
    for latency in (9.0, *[0.25] * 20_000):
        totals.add(detections, latency)
    assert len(totals.latest) == 10_000
    assert "latency 250 ms (median), 9000 ms at most; 0 objects" in totals.summary(Stream(Camera(0.0, 1)))


def options(**others: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"stream": "0", "out": None, "every_frame": False, "reconnects": 5} | others)


class BlindPredictor:
    sixteen_bit_range = (0, 4095)

    def __call__(self, images: list[np.ndarray], **_: Any) -> list[Detections]:
        return [nothing_found()]


def nothing_found() -> Detections:
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), [], [])


def test_options_that_do_not_fit(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(stream_command.os, "isatty", lambda descriptor: descriptor == 0)
    for arguments, message in (
        (["a.jpg", "--stream", "0"], "--stream 0 and SOURCE a.jpg exclude each other"),
        (["--stream", "-1"], "the stream is -1; cameras count from 0"),
        (["--stream", "http://a/b.png"], "is the address of an image; download it"),
        (["--stream", "0", "--csv"], "--csv is for files; a stream gives JSON lines"),
        (["--stream", "0", "--batch_size", "4"], "--batch_size is 1 with --stream"),
        (["--stream", "0", "--reconnects", "-1"], "--reconnects is -1; expected 0"),
        (["--stream", "-", "--reconnects", "3"], "--reconnects is for cameras and addresses"),
        (["a.jpg", "--reconnects", "5"], "--reconnects is for --stream"),
        (["--stream", "0", "--out", str(tmp_path)], "is a folder; with --stream give a file"),
        (["--stream", "0", "--out", f"{checkpoint}/a.jsonl"], "safetensors is a file, not a folder; choose another --out"),
        (["--stream", "-"], "--stream - reads images from a pipe, and there is none: cat"),
        ([], "no SOURCE is given"),
        (["a.jpg", "--every_frame"], "--every_frame is for --stream"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["predict", checkpoint, *arguments])
