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

from detector.__main__ import main
from detector.commands import stream as stream_command
from detector.predict.stream_sources import PipeSource
from tests.detector.commands.test_predict import SETTINGS, checkpoint  # noqa: F401  a fixture
from tests.detector.predict.test_streams import Camera


def use_source(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.setattr(stream_command, "find_source", lambda name: source)


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

    def predictor(images: list[np.ndarray], **_: Any) -> list[Any]:
        if images[0][0, 0, 0] > 3:
            os.kill(os.getpid(), number)
        return [nothing_found()]

    assert stream_command.run_stream(options(), predictor, {"tile": None}) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) >= 1
    assert f"{len(printed.out.splitlines())} of them with results" in printed.err
    assert signal.getsignal(number) == before


def test_a_closed_output_is_a_clean_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    use_source(monkeypatch, Camera(0.0, 10**6))
    monkeypatch.setattr(stream_command, "json_line", lambda *_: (_ for _ in ()).throw(BrokenPipeError))
    monkeypatch.setattr(stream_command.os, "dup2", lambda *_: None)
    monkeypatch.setattr(stream_command.sys.stdout, "fileno", lambda: 1, raising=False)
    assert stream_command.run_stream(options(), lambda *_, **__: [nothing_found()], {"tile": None}) == 0
    assert "1 of them with results" in capsys.readouterr().err


def options(**others: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"stream": "0", "out": None, "every_frame": False, "reconnects": 5} | others)


def nothing_found() -> Any:
    import torch

    from detector.predict import Detections

    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), [], [])


def test_options_that_do_not_fit(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
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
        ([], "no SOURCE is given"),
        (["a.jpg", "--every_frame"], "--every_frame is for --stream"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["predict", checkpoint, *arguments])
    with pytest.raises(ValueError, match=r"--tile 64 64 \(height, width\): frames of 40 x 64 fit into one tile"):
        stream_command.check_tile(np.zeros((40, 64, 3), np.uint8), (64, 64))
