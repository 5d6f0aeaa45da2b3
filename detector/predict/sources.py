"""Images and video frames from files, folders and patterns."""

import glob
import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector.files import walk_folder
from detector.imaging.read import IMAGE_SUFFIXES, BadImageError, num_frames_of, read_upright
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange
from detector.predict.folder import output_of
from detector.predict.videos import video_facts, video_frames
from detector.text import without_secrets

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
MAX_NAME_BYTES = 200  # of an output; file systems take 255, and numbers and suffixes are added


@dataclass(frozen=True)
class MediaFile:
    """An image file or a video."""

    path: Path
    name: Path  # unique among the sources: relative to the given folder, or the name of the given file
    num_frames: int | None = None  # of a video, by its header, 0 if that is unknown; None: an image
    frame_rate: float = 0.0  # of an annotated copy of a video, in frames per second

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
    seconds: float = 0.0  # its time in its video


@dataclass
class Sources:
    """The images and videos to read, in order. ``unreadable`` and ``first_only`` grow while ``frames`` reads them."""

    files: list[MediaFile] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # a message for each input that cannot be read
    left_out: list[Path] = field(default_factory=list)  # files in folders whose suffix is not of an image or a video
    hidden: list[Path] = field(default_factory=list)  # hidden files in folders
    outputs: list[Path] = field(default_factory=list)  # files in folders that an earlier run, or this one, has written
    first_only: list[Path] = field(default_factory=list)  # images with several pages or frames, of which the first is read

    @property
    def num_frames(self) -> int:
        """The expected number of images and frames. Some video headers give a wrong number."""
        return sum(1 if file.num_frames is None else file.num_frames for file in self.files)

    def frames(self, sixteen_bit_range: SampleRange = FULL_RANGE) -> Iterator[Frame]:
        """Read and yield one frame after the other. Files that cannot be read are added to ``unreadable`` and skipped."""
        for file in self.files:
            try:
                if file.is_video:
                    for number, seconds, image in video_frames(file.path):
                        yield Frame(file, image, number, seconds)
                else:
                    image = read_upright(file.path, sixteen_bit_range)
                    if num_frames_of(file.path) > 1:
                        self.first_only.append(file.path)
                    yield Frame(file, image)
            except BadImageError as error:
                self.unreadable.append(str(error))


def find_sources(inputs: Sequence[str], out: Path | None = None) -> Sources:
    """Find the images and videos of ``inputs``: files, folders with their subfolders, patterns as ``"scans/**/*.png"``.

    Each file is taken once, even if several inputs contain it. A file given by its own path is a video if it has a video
    suffix, else an image. Hidden files in folders are left out. So is what an earlier run has written, unless the input is
    inside of it; and what this run writes into ``out``, in any case. Raises ValueError if there is nothing to read.
    """
    sources = Sources()
    names: set[str] = set()
    resolved_paths: set[Path] = set()
    for path, folder in _expand(inputs, sources):
        resolved, suffix = path.resolve(), path.suffix.lower()
        if resolved in resolved_paths:
            continue
        if folder is not None and suffix not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            sources.left_out.append(path)  # unless it is also given by its own path
            continue
        resolved_paths.add(resolved)
        if _is_output(path, folder, out):
            if folder is None:
                sources.unreadable.append(f"{path}: is in the output of this run; choose another --out")
            else:
                sources.outputs.append(path)
        else:
            inside = path.relative_to(folder) if folder and path.is_relative_to(folder) else Path(path.name)
            _add(sources, path, _unique_name(inside, names))
    sources.left_out = [path for path in dict.fromkeys(sources.left_out) if path.resolve() not in resolved_paths]
    if not sources.files:
        reasons = sources.unreadable or [f"no images or videos in {', '.join(inputs)}"]
        raise ValueError("nothing to read: " + "; ".join(reasons))
    return sources


def _add(sources: Sources, path: Path, name: Path) -> None:
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    if path.suffix.lower() == ".gif" and num_frames_of(path) == 1:
        is_video = False
    try:
        sources.files.append(MediaFile(path, name, *video_facts(path)) if is_video else MediaFile(path, name))
    except BadImageError as error:
        sources.unreadable.append(str(error))


def _expand(inputs: Sequence[str], sources: Sources) -> Iterator[tuple[Path, Path | None]]:
    """Yield the path of each file, and the given folder that contains it (None for a file given by its own path)."""
    for text in inputs:
        if Path(text).is_dir():
            yield from _files_of(Path(text), sources)
        elif Path(text).exists():
            yield Path(text), None
        elif not (matches := sorted(glob.glob(text, recursive=True))):
            sources.unreadable.append(_missing(text))
        else:
            for match in map(Path, matches):
                yield from _files_of(match, sources) if match.is_dir() else ((match, _fixed_part(text)),)


def _missing(text: str) -> str:
    if "://" in text:
        is_image = Path(text.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES
        text = without_secrets(text)
        hint = "" if is_image else f". A live stream is --stream {text}"
        return f"{text}: is an address; download the image or video, and give its path{hint}"
    if text.isdecimal():
        return f"{text}: there is no such file; a camera is --stream {text}"
    return f"{text}: there is no such file, folder or pattern"


def _files_of(folder: Path, sources: Sources) -> Iterator[tuple[Path, Path]]:
    folder_files = walk_folder(folder)
    sources.hidden += folder_files.hidden
    yield from ((path, folder) for path in folder_files.files)


def _fixed_part(pattern: str) -> Path:
    """Return the folder of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def _is_output(path: Path, folder: Path | None, out: Path | None) -> bool:
    """Return True for a file that this run may replace, or that an earlier run has written below the given ``folder``."""
    if (output := output_of(path, out)) is None:
        return False
    is_own = out is not None and output.parent == out.resolve()
    return is_own or (folder is not None and not folder.resolve().is_relative_to(output))


def _unique_name(name: Path, names: set[str]) -> Path:
    """Return ``name``, with a number if ``names`` has its stem already, and add the stem to ``names``.

    Stems that differ only in case, or in the form of their accents, count as equal: on some systems they are one file. A
    long name is shortened.
    """
    if len(os.fsencode(name.name)) > MAX_NAME_BYTES:
        digest = hashlib.blake2b(os.fsencode(name.name), digest_size=4).hexdigest()
        kept = os.fsencode(name.stem)[: MAX_NAME_BYTES - 20].decode("utf-8", "ignore")
        name = name.with_name(f"{kept}-{digest}{name.suffix if len(name.suffix) < 10 else ''}")
    number, unique = 1, name
    while (key := unicodedata.normalize("NFC", str(unique.with_suffix(""))).casefold()) in names:
        number += 1
        unique = name.with_stem(f"{name.stem}-{number}")
    names.add(key)
    return unique
