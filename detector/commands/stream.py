"""``python -m detector predict CKPT --stream SOURCE``: detect objects in a live stream, one JSON line for each frame."""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from detector.predict import Detections, Predictor
from detector.predict.stream_sources import PIPE, describe_unreadable, find_source
from detector.predict.streams import Stream, StreamFrame
from detector.text import plural, without_secrets

RECONNECTS = 5
KEPT_LATENCIES = 10_000  # for their median: a stream may run for months
FILES_ONLY = ("csv", "crops", "no_images")  # options that have no meaning for streams


def check_stream_options(options: argparse.Namespace) -> None:
    """Raise ValueError for options that do not go with ``--stream``."""
    if options.sources:
        stream, source = without_secrets(options.stream), options.sources[0]
        raise ValueError(f"--stream {stream} and SOURCE {source} exclude each other; give one of them")
    if wrong := [name for name in FILES_ONLY if getattr(options, name)]:
        raise ValueError(f"--{wrong[0]} is for files; a stream gives JSON lines, on standard output or into --out FILE")
    if options.batch_size != 1 and options.tile is None:
        raise ValueError("--batch_size is 1 with --stream: a batch would wait for frames; leave it out")
    if options.reconnects is not None and options.reconnects < 0:
        raise ValueError(f"--reconnects is {options.reconnects}; expected 0 (never) or more")
    if options.stream.strip() == PIPE:
        if options.reconnects is not None:
            raise ValueError("--reconnects is for cameras and addresses; a pipe has one end: leave it out")
        if os.isatty(0):
            raise ValueError("--stream - reads images from a pipe, and there is none: cat *.jpg | python -m detector ...")
    if options.out is not None:
        _check_lines_file(options.out, options.overwrite)


def _check_lines_file(out: Path, overwrite: bool) -> None:
    """Raise ValueError if ``--out`` can be no file for the lines, or if it exists and ``overwrite`` is False."""
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; with --stream give a file, as detections.jsonl")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} already exists; choose another --out, or give --overwrite")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise ValueError(f"--out {out}: {parent} is a file, not a folder; choose another --out")


def run_stream(options: argparse.Namespace, predictor: Predictor, settings: dict[str, Any]) -> int:
    """Write a line for each frame that is taken, until the stream ends or a signal comes; return the exit status."""

    def log(message: str) -> None:
        print(message, file=sys.stderr)

    reconnects = RECONNECTS if options.reconnects is None else options.reconnects
    source = find_source(options.stream, predictor.sixteen_bit_range)
    stream = Stream(source, options.every_frame, reconnects, log=log)
    totals, is_open, has_warned = StreamTotals(), False, False
    log(f"reading {stream.source.name}; end with Ctrl-C")
    try:
        with stream, _lines(options.out) as lines, _stop_on_signals(stream):
            is_open = True
            for frame in stream:
                if not has_warned and (note := tile_note(frame.image, settings["tile"])):
                    has_warned = True
                    log(note)
                (detections,) = predictor([frame.image], **settings)
                latency = time.time() - frame.captured_at
                totals.add(detections, latency)
                print(json_line(frame, detections, latency, stream.num_dropped), file=lines, flush=True)
    except BrokenPipeError:  # the reader of our output has ended, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would write its buffer at exit
    finally:
        if is_open:
            log(totals.summary(stream))
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


class StreamTotals:
    """What a stream has given so far, in a memory that does not grow with its length."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.num_objects = 0
        self.latest: deque[float] = deque(maxlen=KEPT_LATENCIES)  # latencies in seconds
        self.largest = 0.0

    def add(self, detections: Detections, latency: float) -> None:
        """Count the objects of a frame, and its latency in seconds."""
        self.num_objects += len(detections)
        self.latest.append(latency)
        self.largest = max(self.largest, latency)

    def summary(self, stream: Stream) -> str:
        """Return what was read, dropped and found."""
        seconds = time.monotonic() - self.started
        text = f"{stream.source.name}: {plural(stream.num_read, 'frame')} in {seconds:.1f} s, {stream.num_taken} of them "
        text += f"with results, {stream.num_dropped} dropped for newer ones, {plural(stream.num_reconnects, 'reconnection')}"
        if self.latest:
            median, largest = 1000 * float(np.median(self.latest)), 1000 * self.largest
            text += f"; latency {median:.0f} ms (median), {largest:.0f} ms at most; {plural(self.num_objects, 'object')}"
        return text + describe_unreadable(stream.source)


def tile_note(image: np.ndarray, tile: tuple[int, int] | None) -> str | None:
    """Return a message if a frame fits into one tile (height, width). Other frames of a pipe may be larger."""
    height, width = image.shape[:2]
    if tile is None or height > tile[0] or width > tile[1]:
        return None
    sides = f"--tile {tile[0]} {tile[1]} makes no difference for frames of {height} x {width} (height x width)"
    return f"{sides}, which fit into one tile; give a smaller one"


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
