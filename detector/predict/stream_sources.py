"""The sources of streams: cameras and addresses by OpenCV, and images that come one after the other through a pipe."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image

from detector.imaging.formats import IMAGE_SUFFIXES
from detector.imaging.jpeg import JPEG_END, JPEG_SCAN, NEXT_MARKER
from detector.imaging.read import BadImageError, decode_image, exif_orientation, turn
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange, as_sample_range
from detector.option_errors import named_arguments
from detector.predict.streams import FrameSource, Stream, StreamError
from detector.text import plural, without_secrets

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
TIMEOUT_MS = 5000  # to connect, and to wait for a frame
PIPE = "-"
READ_BYTES = 2**16
MAX_FRAME_BYTES = 2**28
PADDING = b"\0\r\n"  # between images: cameras fill their frames with zeros, and shells end lines
FFMPEG = "ffmpeg ... -f image2pipe -c:v mjpeg - | python -m detector predict CKPT --stream -"
JPEG_FILE_START = b"\xff\xd8\xff"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
FILE_START = re.compile(JPEG_FILE_START + b"|" + PNG_START + rb"|P[56]\s\d+\s+\d+\s+\d+\s")
CARRIERS = (*range(0xE0, 0xF0), 0xFE)  # markers of JPEG segments that may hold another JPEG file, as a thumbnail
START_BYTES = 32  # of a start, at most
EXPECTED = "expected a camera (0 is the first), an address (rtsp://..., http://...), or - for images through a pipe"
ACCEPTED_IMAGES = "JPEG, PNG or binary PNM (P5 or P6) image"


class CaptureSource:
    """A camera, by its index, or a network address, read by OpenCV."""

    close_seconds = TIMEOUT_MS / 1000 + 1

    def __init__(self, address: int | str) -> None:
        self.address = address
        self._capture: Any = None  # a cv2.VideoCapture while the source is open
        self.name = f"camera {address}" if isinstance(address, int) else without_secrets(address)
        self.can_reconnect = True

    def open(self) -> None:
        """Connect. Raises StreamError."""
        if isinstance(self.address, int):
            self._capture = cv2.VideoCapture(self.address)
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
            self._capture = cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, timeouts)
        if not self._capture.isOpened():
            self.close()
            raise StreamError(f"{self.name} cannot be opened; {self._remedy()}")
        # A video file behind an address has a length: its end is no lost connection.
        self.can_reconnect = isinstance(self.address, int) or not 0 < self._capture.get(cv2.CAP_PROP_FRAME_COUNT) < 1e9

    def _remedy(self) -> str:
        if isinstance(self.address, str):
            limit = f"waited at most {TIMEOUT_MS / 1000:g} s"
            return f"check the address, name and password, and that it plays elsewhere ({limit})"
        cameras = ", ".join(str(path) for path in sorted(Path("/dev").glob("video*")))
        found = f" (there are {cameras})" if cameras else ""
        return f"check that it is connected, and that no other program uses it{found}"

    def read(self) -> np.ndarray | None:
        """Return the next frame; None if the connection is lost."""
        is_read, image = self._capture.read()
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if is_read else None

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()


class RawFile(Protocol):
    """A file without a buffer: ``read`` returns what has come, and b"" at the end."""

    def read(self, size: int, /) -> bytes | None: ...


class PipeSource:
    """JPEG, PNG or PNM images that follow one another in ``file``.

    Those that are damaged, truncated or cannot be decoded are counted and left out: ``read`` goes on with the next image.
    """

    can_reconnect = False
    close_seconds = 0.2  # an idle pipe would keep ``read`` waiting for ever, and has nothing to close

    def __init__(self, file: RawFile, name: str = "the pipe", sixteen_bit_range: SampleRange = FULL_RANGE) -> None:
        self.name, self._file, self.sixteen_bit_range = name, file, sixteen_bit_range
        self._content = bytearray()
        self._has_started = False  # with an image
        self._has_whole_image = False
        self._damaged_from = 1  # bytes of the image at the start that are not searched for the next one, if it is damaged
        self._exif_end = 0  # of the EXIF data in which the image at the start is damaged; 0 if it is not
        self._starts_in_exif = False  # the image at the start may be the thumbnail of the damaged one before it
        self.num_unreadable = 0

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self) -> np.ndarray | None:
        """Return the next image, upright; None at the end.

        Raises StreamError if the pipe does not start with an image, and if it ends without a whole one.
        """
        while self._has_more_than_padding():
            if (content := self._next_file()) is None:
                continue
            try:
                image = turn(decode_image(content, 1, self.sixteen_bit_range), exif_orientation(content))
            except BadImageError:
                self.num_unreadable += 1
            else:
                self._has_whole_image = True
                return image
        if not self._has_whole_image:
            reason = f"has ended without a whole {ACCEPTED_IMAGES}"
            raise StreamError(f"{self.name} {reason}; check the program that writes into it")
        return None

    def _has_more_than_padding(self) -> bool:
        """Drop the padding before the next image; return False if the pipe ends."""
        while self._has(1) and self._content[0] in PADDING:
            self._content = self._content.lstrip(PADDING)
        return bool(self._content)

    def _next_file(self) -> bytes | None:
        """Take the file at the start. If it is no whole image, count it, go to the next start and return None."""
        self._damaged_from, self._exif_end = 1, 0
        self._has(2)
        measure = MEASURES.get(bytes(self._content[:2]))
        if measure is None and not self._has_started:
            shown = bytes(self._content[:8])
            raise StreamError(f"{self.name} has {shown!r} where a {ACCEPTED_IMAGES} starts; for videos: {FFMPEG}")
        self._has_started = True
        length = None if measure is None else measure(self)
        if length is None or not self._has(length):
            self.num_unreadable += not self._starts_in_exif  # the rest of a thumbnail belongs to an image that is counted
            self._go_to_next_start()
            return None
        content = bytes(self._content[:length])
        del self._content[:length]
        self._starts_in_exif = False
        return content

    def _go_to_next_start(self) -> None:
        """Drop a damaged image up to the start of the next one, or up to the end of the pipe."""
        if self._exif_end and (thumbnail_end := self._whole_thumbnail_end()):
            self._damaged_from, self._exif_end = thumbnail_end, 0
        del self._content[: self._damaged_from]
        exif_bytes = self._exif_end - self._damaged_from
        while (match := FILE_START.search(self._content)) is None:
            exif_bytes = 0  # they were here, and have no start
            del self._content[:-START_BYTES]  # they may be the begin of a start
            if not self._has(len(self._content) + 1):
                self._content.clear()
                return
        self._starts_in_exif = match.start() < exif_bytes
        del self._content[: match.start()]

    def _whole_thumbnail_end(self) -> int | None:
        """Return where the thumbnail of the damaged image at the start ends; None if its EXIF data were cut before."""
        tiff = self._damaged_from + 10  # after the marker, the length and "Exif"
        exif = PIL.Image.Exif()
        try:
            exif.load(bytes(self._content[tiff : self._exif_end]))
            thumbnail = exif.get_ifd(PIL.ExifTags.IFD.IFD1)
            start = tiff + thumbnail[PIL.ExifTags.Base.JpegIFOffset]
            end = start + thumbnail[PIL.ExifTags.Base.JpegIFByteCount]
        except Exception:  # Pillow raises many kinds of errors for damaged EXIF data
            return None
        is_whole = self._content.startswith(JPEG_FILE_START, start) and self._content[end - 2 : end] == JPEG_END
        return end if is_whole and end <= self._exif_end else None

    def _has(self, length: int) -> bool:
        """Read on until ``length`` bytes are there; return False if the pipe ends before."""
        if length > MAX_FRAME_BYTES:
            raise StreamError(f"{self.name} has an image of more than {MAX_FRAME_BYTES // 2**20} MiB")
        while len(self._content) < length:
            more = self._file.read(READ_BYTES)
            if not more:
                return False
            self._content += more
        return True

    def _jpeg_length(self) -> int | None:
        """Return the bytes of the JPEG file at the start: segments have a length, and scans end before the next marker.

        None for a damaged file; a truncated one ends where the next one starts, or within a segment.
        """
        at, has_scan = 2, False
        while self._has(at + 2):
            marker = self._content[at + 1]
            # After a segment that was cut off, what is here may be of the next image's compressed data, as a 0xff 0x00.
            if self._content[at] != 0xFF or marker == 0xD8 or (marker < 0xC0 and marker != 0x01):
                return None
            if marker == 0xD9:
                return at + 2 if has_scan else None
            if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD7:
                at += 1 if marker == 0xFF else 2
                continue
            if not self._has(at + 4):
                return None
            self._damaged_from = start = at  # if this segment is cut off, the next image starts within its length
            at += 2 + int.from_bytes(self._content[at + 2 : at + 4], "big")
            # Two bytes behind the segment are needed, too: the start of the next image may lie across its end.
            searched_from, has_end = at - 2 if marker in CARRIERS else start, self._has(at + 2)
            self._exif_end = at if self._content.startswith(b"Exif", start + 4) else 0
            if not has_end or self._content.find(JPEG_FILE_START, searched_from, at + 2) >= 0:
                return None
            if marker == JPEG_SCAN:
                end = self._scan_end(at)
                if end is None or FILE_START.search(self._content, start, end):  # of a PNG or PNM image
                    return None
                at, has_scan = end, True
        return None

    def _scan_end(self, at: int) -> int | None:
        """Return the place of the first marker in the compressed data from ``at`` on; None if the pipe ends before."""
        while True:
            if match := NEXT_MARKER.search(self._content, at):
                return match.start()
            at = max(at, len(self._content) - 1)  # a last 0xff may begin a marker
            if not self._has(len(self._content) + 1):
                return None

    def _png_length(self) -> int | None:
        """Return the bytes of the PNG file at the start; None for a damaged one, or if another one starts within it."""
        at = 8
        while self._has(at + 8):
            length, kind = int.from_bytes(self._content[at : at + 4], "big"), bytes(self._content[at + 4 : at + 8])
            if not kind.isalpha() or length > MAX_FRAME_BYTES:
                return None
            self._damaged_from = at  # if this chunk is cut off, the next image starts within its length
            at += 12 + length
            if kind == b"IEND":
                self._damaged_from = 1
                is_whole = self._has(at) and self._content.startswith(PNG_END, at - len(PNG_END))
                return at if is_whole and self._content.find(PNG_START, 1, at) < 0 else None
        return None

    def _pnm_length(self) -> int | None:
        """Return the bytes of the PNM file at the start: a header, and pixels that are not compressed."""
        header, size = None, 32
        while header is None:
            is_more = self._has(size)
            header = re.match(rb"P[56](?:\s+|#[^\n]*\n)*?\s(\d+)\s+(\d+)\s+(\d+)\s", self._content)
            if header is None and (not is_more or size > 1024):
                return None
            size *= 2
        width, height, maximum = map(int, header.groups())
        channels = 3 if self._content[:2] == b"P6" else 1
        return header.end() + width * height * channels * (2 if maximum > 255 else 1)


MEASURES = {  # the length of a file, by its first two bytes
    b"\xff\xd8": PipeSource._jpeg_length,
    b"\x89P": PipeSource._png_length,
    b"P5": PipeSource._pnm_length,
    b"P6": PipeSource._pnm_length,
}


@named_arguments
def open_stream(
    source: str | int,
    every_frame: bool = False,
    reconnects: int = 5,
    backoff: float = 1.0,
    log: Callable[[str], None] | None = None,
    sixteen_bit_range: SampleRange = FULL_RANGE,
) -> Stream:
    """Return the ``Stream`` of a camera (an index), an address, or a pipe (``-``); see ``Stream`` for the settings.

    ``sixteen_bit_range`` (darkest, brightest) is for images with 16 bits through a pipe; give that of the Predictor. Raises
    ValueError for anything else.
    """
    return Stream(find_source(source, sixteen_bit_range), every_frame, reconnects, backoff, log)


def find_source(source: str | int, sixteen_bit_range: SampleRange = FULL_RANGE) -> FrameSource:
    """Return the source that a user names. Raises ValueError, with what is expected, for anything else."""
    text, sixteen_bit_range = str(source).strip(), as_sample_range(sixteen_bit_range)
    if text == PIPE:
        return PipeSource(open(0, "rb", buffering=0, closefd=False), "standard input", sixteen_bit_range)
    if re.fullmatch(r"-?\d+", text):
        if int(text) < 0:
            raise ValueError(f"the stream is {text}; cameras count from 0")
        return CaptureSource(int(text))
    if "://" in text:
        return _find_address(text)
    if match := re.fullmatch(r"/dev/video(\d+)", os.path.realpath(text)):  # also a link, as in /dev/v4l/by-id
        return CaptureSource(int(match[1]))
    if text and Path(text).is_fifo():
        raise ValueError(f"{text} is a named pipe; read it as standard input: --stream - < {text}")
    if text and Path(text).exists():
        kind = "folder" if Path(text).is_dir() else "file"
        raise ValueError(f"{text} is a {kind}; give it as SOURCE, without --stream")
    raise ValueError(f"the stream is {text!r}; {EXPECTED}")


def _find_address(text: str) -> CaptureSource:
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in SCHEMES:
        expected = f"expected one of {', '.join(SCHEMES)}; a file is given by its path, as SOURCE"
        raise ValueError(f"the stream {without_secrets(text)} has the scheme {scheme}; {expected}")
    if Path(rest.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{without_secrets(text)} is the address of an image; download it, and give its path as SOURCE")
    return CaptureSource(f"{scheme.lower()}://{rest}")  # FFmpeg does not know RTSP://


def describe_unreadable(source: FrameSource) -> str:
    """Return how many images of a pipe could not be decoded, as the end of a sentence; empty for none."""
    number = getattr(source, "num_unreadable", 0)
    return f"; {plural(number, 'image')} could not be decoded and left out" if number else ""
