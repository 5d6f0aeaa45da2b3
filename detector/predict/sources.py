"""Images and video frames from files, folders and patterns."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from detector.imaging.read import IMAGE_SUFFIXES, BadImageError, read_upright
from detector.text import plural

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
DEFAULT_FRAME_RATE = 25.0  # for videos whose headers lack it


@dataclass(frozen=True)
class MediaFile:
    """An image file or a video."""

    path: Path
    name: Path  # unique among the sources: relative to the given folder, or the name of the given file
    num_frames: int | None = None  # of a video, by its header; None: an image
    frame_rate: float = 0.0  # of a video, in frames per second

    @property
    def is_video(self) -> bool:
        """True for a video, False for an image."""
        return self.num_frames is not None


@dataclass(frozen=True)
class Frame:
    """An image, or one frame of a video."""

    file: MediaFile
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    number: int = 0  # of the frame in its video, from 0


@dataclass
class Sources:
    """The images and videos to read, in order. ``unreadable`` grows while ``frames`` reads them."""

    files: list[MediaFile] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # a message for each input that cannot be read
    left_out: list[Path] = field(default_factory=list)  # files in folders whose suffix is not of an image or a video

    @property
    def num_frames(self) -> int:
        """The expected number of images and frames. Some video headers give a wrong number."""
        return sum(file.num_frames if file.is_video else 1 for file in self.files)

    def frames(self) -> Iterator[Frame]:
        """Read and yield one frame after the other. Files that cannot be read are added to ``unreadable`` and skipped."""
        for file in self.files:
            try:
                if file.is_video:
                    yield from _video_frames(file)
                else:
                    yield Frame(file, read_upright(file.path))
            except BadImageError as error:
                self.unreadable.append(str(error))


def find_sources(inputs: Sequence[str]) -> Sources:
    """Find the images and videos of ``inputs``: files, folders with their subfolders, patterns as ``"scans/**/*.png"``.

    Each file is taken once, even if several inputs contain it. A file given by its own path is a video if it has a video
    suffix, else an image. Raises ValueError if there is nothing to read.
    """
    sources = Sources()
    names: set[Path] = set()
    resolved_paths: set[Path] = set()
    for path, folder in _expand(inputs, sources):
        if (resolved := path.resolve()) in resolved_paths:
            continue
        resolved_paths.add(resolved)
        suffix = path.suffix.lower()
        if folder is not None and suffix not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            sources.left_out.append(path)
            continue
        name = _unique_name(path.relative_to(folder) if folder else Path(path.name), names)
        try:
            sources.files.append(_video(path, name) if suffix in VIDEO_SUFFIXES else MediaFile(path, name))
        except BadImageError as error:
            sources.unreadable.append(str(error))
    if not sources.files:
        reasons = sources.unreadable or [f"no images or videos in {', '.join(inputs)}"]
        raise ValueError("nothing to read: " + "; ".join(reasons))
    return sources


def _expand(inputs: Sequence[str], sources: Sources) -> Iterator[tuple[Path, Path | None]]:
    """Yield the path of each file, and the given folder that contains it (None for a file or a match of a pattern)."""
    for text in inputs:
        paths = [Path(text)] if Path(text).exists() else [Path(m) for m in sorted(glob.glob(text, recursive=True))]
        if not paths:
            sources.unreadable.append(f"{text}: there is no such file, folder or pattern")
        for path in paths:
            if path.is_dir():
                yield from ((file, path) for file in sorted(path.rglob("*")) if file.is_file())
            else:
                yield path, None


def _unique_name(name: Path, names: set[Path]) -> Path:
    """Return ``name``, with a number if ``names`` has its stem already, and add the stem to ``names``."""
    number, unique = 1, name
    while unique.with_suffix("") in names:
        number += 1
        unique = name.with_stem(f"{name.stem}-{number}")
    names.add(unique.with_suffix(""))
    return unique


def _video(path: Path, name: Path) -> MediaFile:
    capture = _open_video(path)
    num_frames, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return MediaFile(path, name, max(num_frames, 0), rate if 0 < rate < 1000 else DEFAULT_FRAME_RATE)


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise BadImageError(f"{path}: is not a video that OpenCV can read; convert it, for instance to H.264 in .mp4")
    return capture


def _video_frames(file: MediaFile) -> Iterator[Frame]:
    capture, number = _open_video(file.path), 0
    try:
        while (image := capture.read()[1]) is not None:
            yield Frame(file, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), number)
            number += 1
    finally:
        capture.release()
    if number == 0 or file.num_frames - number > file.frame_rate:  # the header's count may be an estimate
        raise BadImageError(f"{file.path}: ends after {number} of {plural(file.num_frames, 'frame')}; restore the file")
