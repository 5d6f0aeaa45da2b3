"""``python -m detector predict CKPT --stream SOURCE``: detect objects in a live stream, one JSON line for each frame."""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from detector.predict import Detections, Predictor
from detector.predict.stream_sources import PIPE, describe_unreadable, find_source
from detector.predict.streams import Stream, StreamFrame
from detector.text import plural

RECONNECTS = 5
FILES_ONLY = ("csv", "crops", "no_images")  # options that have no meaning for streams


def check_stream_options(options: argparse.Namespace) -> None:
    """Raise ValueError for options that do not go with ``--stream``."""
    if options.sources:
        raise ValueError(f"--stream {options.stream} and SOURCE {options.sources[0]} exclude each other; give one of them")
    if wrong := [name for name in FILES_ONLY if getattr(options, name)]:
        raise ValueError(f"--{wrong[0]} is for files; a stream gives JSON lines, on standard output or into --out FILE")
    if options.batch_size != 1 and options.tile is None:
        raise ValueError("--batch_size is 1 with --stream: a batch would wait for frames; leave it out")
    if options.reconnects is not None and options.reconnects < 0:
        raise ValueError(f"--reconnects is {options.reconnects}; expected 0 (never) or more")
    if options.reconnects is not None and options.stream.strip() == PIPE:
        raise ValueError("--reconnects is for cameras and addresses; a pipe has one end: leave it out")
    if options.out is not None and options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; with --stream give a file, as detections.jsonl")
    if options.out is not None and options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} already exists; choose another --out, or give --overwrite")


def run_stream(options: argparse.Namespace, predictor: Predictor, settings: dict[str, Any]) -> int:
    """Write a line for each frame that is taken, until the stream ends or a signal comes; return the exit status."""

    def log(message: str) -> None:
        print(message, file=sys.stderr)

    reconnects = RECONNECTS if options.reconnects is None else options.reconnects
    stream = Stream(find_source(options.stream), options.every_frame, reconnects, log=log)
    latencies, started, is_open = [], time.monotonic(), False
    objects: Counter[str] = Counter()
    log(f"reading {stream.source.name}; end with Ctrl-C")
    try:
        with _lines(options.out) as lines, stream, _stop_on_signals(stream):
            is_open = True
            for frame in stream:
                check_tile(frame.image, settings["tile"])
                (detections,) = predictor([frame.image], **settings)
                latencies.append(time.time() - frame.captured_at)
                objects.update(detections.names)
                print(json_line(frame, detections, latencies[-1], stream.num_dropped), file=lines, flush=True)
    except BrokenPipeError:  # the reader of our output has ended, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would write its buffer at exit
    finally:
        if is_open:
            log(summary(stream, latencies, objects, time.monotonic() - started))
    return 0


def json_line(frame: StreamFrame, detections: Detections, latency: float, num_dropped: int) -> str:
    """Return the line of a frame."""
    objects = [
        {"box": [round(side, 2) for side in found.box], "score": round(found.score, 6)}
        | {"label": found.label, "name": found.name, "category_id": found.category_id}
        for found in detections
    ]
    height, width = frame.image.shape[:2]
    facts = {"frame": frame.number, "time": round(frame.captured_at, 3), "latency": round(latency, 4)}
    return json.dumps(facts | {"dropped": num_dropped, "height": height, "width": width, "objects": objects})


def summary(stream: Stream, latencies: list[float], objects: Counter, seconds: float) -> str:
    """Return what was read, dropped and found."""
    text = f"{stream.source.name}: {plural(stream.num_read, 'frame')} in {seconds:.1f} s, {stream.num_taken} of them with "
    text += f"results, {stream.num_dropped} dropped for newer ones, {plural(stream.num_reconnects, 'reconnection')}"
    if latencies:
        median, most = 1000 * float(np.median(latencies)), 1000 * max(latencies)
        text += f"; latency {median:.0f} ms (median), {most:.0f} ms at most; {plural(objects.total(), 'object')}"
    return text + describe_unreadable(stream.source)


def check_tile(image: np.ndarray, tile: tuple[int, int] | None) -> None:
    """Raise ValueError if a frame fits into one tile."""
    height, width = image.shape[:2]
    if tile is not None and height <= tile[0] and width <= tile[1]:
        raise ValueError(
            f"--tile {tile[0]} {tile[1]} (height, width): frames of {height} x {width} fit into one tile; leave it out, or "
            "give a smaller one"
        )


@contextlib.contextmanager
def _lines(out: Path | None) -> Iterator[TextIO]:
    """Yield the file for the lines: ``out``, or standard output."""
    if out is None:
        yield sys.stdout
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _stop_on_signals(stream: Stream) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the stream after the frame at hand; a second one acts as always."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: Any) -> None:
        stream.stop()
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
