"""Frames of cameras, network streams and pipes: always the newest one, so that results never lag behind."""

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np

from detector.arguments import as_bool, as_number, as_whole_number
from detector.text import plural

POLL_SECONDS = 0.2  # between looks at ``stop``, which a signal may call
MAX_BACKOFF = 30.0  # seconds between two attempts to connect


class StreamError(ValueError):
    """A stream that cannot be read; the message names it."""


class FrameSource(Protocol):
    """Where frames come from. ``name`` is for messages, without passwords. ``open`` may raise StreamError."""

    name: str
    can_reconnect: bool  # after the end of its frames
    close_seconds: float  # at the end, to wait for a ``read`` in progress, so that the source is closed

    def open(self) -> None: ...

    def read(self) -> np.ndarray | None:
        """Return the next frame (H, W, 3) uint8 RGB, when it has come; None at the end, or when the connection is lost."""
        ...

    def close(self) -> None: ...


class StreamFrame(NamedTuple):
    """A frame of a stream."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    number: int  # among all frames that were read, from 0
    captured_at: float  # seconds since 1970, when it was read


class Stream:
    """Reads a source in a thread and keeps the newest frame: iterate over it within ``with``.

    A frame that a newer one replaces before the user takes it is dropped and counted. So a result is older than its frame by
    the time of one frame and of the user's work, however slow that is. With ``every_frame`` the source waits instead.

    A source that ends is opened again, up to ``reconnects`` times in a row, after 1, 2, 4, ... seconds (times ``backoff``).
    Then StreamError is raised. ``stop`` ends the iteration, also from a signal handler.

    ``num_read``, ``num_taken``, ``num_dropped`` and ``num_reconnects`` count; ``num_read`` is ``num_taken + num_dropped``.
    """

    def __init__(
        self,
        source: FrameSource,
        every_frame: bool = False,
        reconnects: int = 5,
        backoff: float = 1.0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.source, self.every_frame = source, as_bool(every_frame, "every_frame")
        self.reconnects = as_whole_number(reconnects, "reconnects", 0)
        self.backoff, self.log = as_number(backoff, "backoff", high=MAX_BACKOFF), log or (lambda message: None)
        self.num_read = self.num_taken = self.num_dropped = self.num_reconnects = 0
        self._frame: StreamFrame | None = None  # read and not taken
        self._ended = False
        self._error: Exception | None = None
        self._changed, self._stopping = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"reader of {source.name}", daemon=True)

    def __enter__(self) -> Self:
        """Open the source and start reading. Raises StreamError at once if it cannot be opened, or was opened before."""
        if self._thread.ident is not None:
            raise StreamError(f"the stream of {self.source.name} was opened before; make a new one")
        self.source.open()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._thread.join(self.source.close_seconds)
        if self._frame is not None:  # the user has stopped before it: it counts as not read
            self._frame, self.num_read = None, self.num_read - 1

    def __iter__(self) -> Iterator[StreamFrame]:
        """Yield the frames. Raises StreamError outside of ``with``, and if the source cannot be read any more."""
        if self._thread.ident is None:
            raise StreamError(f"the stream of {self.source.name} is not open; iterate over it within: with ... as stream")
        while (frame := self._take()) is not None:
            yield frame
        if self._error is not None and not self._stopping.is_set():
            raise self._error

    def stop(self) -> None:
        """End the iteration after the frame at hand."""
        self._stopping.set()  # no lock: it may be called from a signal handler

    def _take(self) -> StreamFrame | None:
        """Wait for a frame and return it; None at the end."""
        with self._changed:
            while self._frame is None and not self._ended and not self._stopping.is_set():
                self._changed.wait(POLL_SECONDS)
            if self._stopping.is_set() or self._frame is None:
                return None
            frame, self._frame = self._frame, None
            self.num_taken += 1
            self._changed.notify_all()
            return frame

    def _read(self) -> None:
        """Read the source to its end, in the thread."""
        try:
            failures = 0
            while not self._stopping.is_set():
                image = self.source.read()
                if image is not None:
                    failures = 0
                    self._offer(image)
                elif not self.source.can_reconnect:
                    break
                else:
                    failures = self._reconnect(failures)
        except Exception as error:  # raised again where the user iterates
            self._error = error
        finally:
            self.source.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _offer(self, image: np.ndarray) -> None:
        with self._changed:
            while self.every_frame and self._frame is not None and not self._stopping.is_set():
                self._changed.wait(POLL_SECONDS)
            if self._stopping.is_set():
                return
            self.num_dropped += self._frame is not None
            self._frame = StreamFrame(image, self.num_read, time.time())
            self.num_read += 1
            self._changed.notify_all()

    def _reconnect(self, failures: int) -> int:
        """Open the source again after a pause; return the number of failures in a row. Raises StreamError after the last."""
        self.source.close()
        while not self._stopping.is_set():
            failures += 1
            if failures > self.reconnects:
                attempts = f", and {plural(self.reconnects, 'attempt')} to connect again failed" if self.reconnects else ""
                raise StreamError(f"{self.source.name}: the connection is lost{attempts}")
            pause = min(self.backoff * 2 ** (failures - 1), MAX_BACKOFF)
            self.log(f"{self.source.name}: the connection is lost; attempt {failures} of {self.reconnects} in {pause:g} s")
            if self._stopping.wait(pause):
                break
            try:
                self.source.open()
            except StreamError:
                continue
            self.num_reconnects += 1
            break
        return failures
