"""What a user means by files, folders, patterns and videos: images, one after the other."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from detector.imaging.read import BadImageError, read_upright
from detector.text import plural

IMAGES = {".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}


@dataclass(frozen=True)
class Source:
    """An image file or a video."""

    path: Path
    name: Path  # its own within the run: relative to the folder that was given, else the name of the file
    frames: int | None = None  # of a video, as its header says; None: an image
    rate: float = 0.0  # frames a second of a video


@dataclass(frozen=True)
class Frame:
    """An image, or one frame of a video."""

    source: Source
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    number: int = 0  # of the frame in its video, from 0


@dataclass
class Sources:
    """The images and videos found, and what is wrong with others; that list grows while frames are read."""

    found: list[Source] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # inputs that were asked for, each with the reason
    left_out: list[Path] = field(default_factory=list)  # files in folders that are neither, by their names

    @property
    def num_frames(self) -> int:
        """The number of frames expected; headers of videos do not always know."""
        return sum(1 if source.frames is None else source.frames for source in self.found)

    def frames(self) -> Iterator[Frame]:
        """Read one after the other; what cannot be read is added to ``unreadable`` and skipped."""
        for source in self.found:
            try:
                if source.frames is None:
                    yield Frame(source, read_upright(source.path))
                else:
                    yield from _video_frames(source)
            except BadImageError as error:
                self.unreadable.append(str(error))


def find_sources(given: Sequence[str]) -> Sources:
    """Return what ``given`` names: files, folders (with all below), patterns such as ``"scans/**/*.png"``, videos.

    A file is looked at once, however often it is named. A file named by itself is a video if its suffix says so, else a
    image. Raises ValueError if nothing of it can be read.
    """
    sources = Sources()
    names: set[Path] = set()
    seen: set[Path] = set()
    for path, folder in _expand(given, sources):
        if (key := path.resolve()) in seen:
            continue
        seen.add(key)
        suffix = path.suffix.lower()
        if folder is not None and suffix not in IMAGES | VIDEOS:
            sources.left_out.append(path)
            continue
        name = _unused(path.relative_to(folder) if folder else Path(path.name), names)
        try:
            sources.found.append(_video(path, name) if suffix in VIDEOS else Source(path, name))
        except BadImageError as error:
            sources.unreadable.append(str(error))
    if not sources.found:
        reasons = sources.unreadable or [f"no images or videos in {', '.join(given)}"]
        raise ValueError("nothing to look at: " + "; ".join(reasons))
    return sources


def _expand(given: Sequence[str], sources: Sources) -> Iterator[tuple[Path, Path | None]]:
    """Yield the files that are meant, each with the folder that was given, if one was."""
    for text in given:
        paths = [Path(text)]
        if not paths[0].exists():
            paths = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        if not paths:
            sources.unreadable.append(f"{text}: there is no such file, folder or pattern")
        for path in paths:
            if path.is_dir():
                yield from ((file, path) for file in sorted(path.rglob("*")) if file.is_file())
            else:
                yield path, None


def _unused(name: Path, names: set[Path]) -> Path:
    """Return ``name``, with a number if files of it would be confused with those of one before, and note it."""
    number, free = 1, name
    while free.with_suffix("") in names:
        number += 1
        free = name.with_stem(f"{name.stem}-{number}")
    names.add(free.with_suffix(""))
    return free


def _video(path: Path, name: Path) -> Source:
    capture = _open(path)
    frames, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return Source(path, name, max(frames, 0), rate if 0 < rate < 1000 else 25.0)  # some headers lack the rate


def _open(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise BadImageError(f"{path}: is not a video that OpenCV can read; convert it, for instance to H.264 in .mp4")
    return capture


def _video_frames(source: Source) -> Iterator[Frame]:
    capture, number = _open(source.path), 0
    try:
        while True:
            whole, image = capture.read()
            if not whole:
                break
            yield Frame(source, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), number)
            number += 1
    finally:
        capture.release()
    if number == 0 or source.frames - number > source.rate:  # the header's count may be an estimate
        raise BadImageError(f"{source.path}: ends after {number} of {plural(source.frames, 'frame')}; restore the file")
