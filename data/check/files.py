"""Findings of a data check that need the image files: every image is read and decoded."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from data.annotations import Annotations
from data.check.findings import MAX_EXAMPLES, Finding, Splits, image_finding, leak_findings
from data.check.near_copies import near_copy_findings, thumbnail
from data.images import read_image, stored_size
from detector.imaging.read import UNREADABLE, BadImageError, exif_orientation, num_frames_of, read_file, sixteen_bit_limits
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange
from detector.text import plural

SIXTEEN_BITS = "16 bits a channel"
NARROW = 0.25  # images that use a smaller part of the range of 16-bit images give a warning
READ_AS = {  # kinds of pixels that are converted, and the result
    "grayscale": "three equal channels",
    "palette": "RGB",
    "CMYK": "RGB",
    "with transparency": "the stored colors, also of transparent pixels",
    SIXTEEN_BITS: "the upper 8 bits",
}


@dataclass(frozen=True)
class FileFacts:
    """Facts about one image file."""

    digest: bytes = b""  # of its content; empty if it cannot be read
    kind: str = "RGB"  # or one of READ_AS
    orientation: int = 1  # of its EXIF data; 1 is upright
    turned: bool = False  # it is read upright
    error: str | None = None  # why it cannot be used
    num_frames: int = 1  # pages of a TIFF, images of an animation: the first is used
    thumbnail: bytes = b""  # see ``near_copies``; empty if it cannot be used
    limits: tuple[int, int] | None = None  # darkest and brightest value of an image with 16 bits a channel


def check_files(splits: Splits) -> list[Finding]:
    """Read and decode every image. Takes about 5 ms an image and core."""
    findings: list[Finding] = []
    digests: dict[str, dict[bytes, list[int]]] = {}
    all_facts: dict[str, list[FileFacts]] = {}
    for split, annotations in splits.items():
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            facts = list(pool.map(partial(_file_facts, annotations), range(len(annotations))))
        if errors := [fact.error for fact in facts if fact.error]:
            findings.append(Finding("error", split, f"{plural(len(errors), 'image')} cannot be used", errors))
        findings += _exif_rotations(split, annotations, facts)
        findings += _converted_images(split, annotations, facts)
        if several := [n for n, fact in enumerate(facts) if fact.num_frames > 1 and not fact.error]:
            text = f"{plural(len(several), 'file has', 'files have')} several pages or frames, of which the first is used"
            findings.append(image_finding("warning", split, text, annotations, several))
        findings += _sixteen_bit_images(split, annotations, facts)
        digests[split], all_facts[split] = _indices_by_digest(facts), facts
    for split, annotations in splits.items():
        findings += _copies_within(split, annotations, digests[split])
    for split in splits:
        if split != "train" and "train" in splits:
            findings += _copies_of_train(split, splits, digests)
    thumbnails = {split: [fact.thumbnail for fact in facts] for split, facts in all_facts.items()}
    contents = {split: [fact.digest for fact in facts] for split, facts in all_facts.items()}
    return [*findings, *near_copy_findings(splits, thumbnails, contents)]


def image_kind(content: bytes) -> str:
    """Return the kind of pixels of an image file, "RGB" or one of READ_AS, from its header."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, bits = image.mode, 8
            if image.format == "PNG":
                bits = content[24]  # in the first chunk, after width and height; Pillow does not give it for RGB
            elif image.format == "TIFF":
                bits = max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]  # TIFF images have it
            has_alpha = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except UNREADABLE:  # formats that only OpenCV can read
        return "RGB"
    if bits == 16 or mode.startswith(("I", "F")):
        return SIXTEEN_BITS
    if has_alpha:
        return "with transparency"
    return {"L": "grayscale", "1": "grayscale", "CMYK": "CMYK", "P": "palette"}.get(mode, "RGB")


def _file_facts(annotations: Annotations, index: int) -> FileFacts:
    path = annotations.image_path(index)
    facts = FileFacts()
    try:
        content = read_file(path)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        facts = FileFacts(digest, image_kind(content), exif_orientation(content), num_frames=num_frames_of(path))
        if facts.orientation != 1:
            facts = replace(facts, turned=_is_turned(annotations, index, facts.orientation))
        if facts.kind == SIXTEEN_BITS:
            facts = replace(facts, limits=sixteen_bit_limits(content))
        image = read_image(path, annotations.size(index), annotations.upright, 1, annotations.sixteen_bit_range)
        facts = replace(facts, thumbnail=thumbnail(image))
    except BadImageError as error:
        facts = replace(facts, error=str(error))
    return facts


def _is_turned(annotations: Annotations, index: int, orientation: int) -> bool:
    """Return True if an image with this EXIF orientation is read upright, as ``read_image`` decides."""
    size = annotations.size(index)
    shows_turn = orientation >= 5 and size != size[::-1] and stored_size(annotations.image_path(index)) == size
    return annotations.upright or shows_turn


def _exif_rotations(split: str, annotations: Annotations, facts: list[FileFacts]) -> Iterator[Finding]:
    """Report the images with an EXIF rotation, those that are turned and those that are read as stored."""
    rotated = [n for n, fact in enumerate(facts) if fact.orientation != 1 and not fact.error]
    turned, as_stored = ([n for n in rotated if facts[n].turned is value] for value in (True, False))
    if turned:
        reason = "" if annotations.upright else ": the size on file is that of the turned image"
        text = f"{plural(len(turned), 'image has', 'images have')} an EXIF rotation, which is applied{reason}"
        yield image_finding("note" if annotations.upright else "warning", split, text, annotations, turned)
    if as_stored:
        text = (
            f"{plural(len(as_stored), 'image has', 'images have')} an EXIF rotation, which is not applied: the size on file "
            "is that of the stored image, or the same either way; look whether the boxes fit, and save the images upright "
            "if they do not"
        )
        if turned:
            text += f" ({plural(len(turned), 'other image', 'other images')} here have boxes of the turned image)"
        yield image_finding("warning", split, text, annotations, as_stored)


def _converted_images(split: str, annotations: Annotations, facts: list[FileFacts]) -> Iterator[Finding]:
    for kind, read_as in READ_AS.items():
        if converted := [n for n, fact in enumerate(facts) if fact.kind == kind and not fact.error]:
            text = f"{plural(len(converted), 'image')} ({kind}) read as {read_as}"
            if kind == SIXTEEN_BITS and annotations.sixteen_bit_range != FULL_RANGE:
                low, high = annotations.sixteen_bit_range
                text = f"{plural(len(converted), 'image')} ({kind}): the values {low} to {high} are read as 0 to 255"
            yield image_finding("note", split, text, annotations, converted)


def _sixteen_bit_images(split: str, annotations: Annotations, facts: list[FileFacts]) -> Iterator[Finding]:
    """Warn of images that use a small part of the range of 16-bit images, and of those with values outside of it."""
    low, high = annotations.sixteen_bit_range
    limits = {n: fact.limits for n, fact in enumerate(facts) if fact.limits and not fact.error}
    narrow = [n for n, (darkest, brightest) in limits.items() if brightest - darkest < NARROW * (high - low)]
    if narrow:
        darkest, brightest = min(limits[n][0] for n in limits), max(limits[n][1] for n in limits)
        images = plural(len(narrow), "image uses", "images use")
        share = max(limits[n][1] - limits[n][0] for n in narrow) / (high - low)
        text = (
            f"{images} at most {share:.1%} of the values {low} to {high} of 16-bit images, so contrast is low; all 16-bit "
            f"images here have values from {darkest} to {brightest}: data.sixteen_bit_range "
            f"{list(suggested_range(darkest, brightest))} would spread them over 0 to 255"
        )
        yield image_finding("warning", split, text, annotations, narrow)
    if outside := [n for n, (darkest, brightest) in limits.items() if darkest < low or brightest > high]:
        text = (
            f"{plural(len(outside), 'image has', 'images have')} values outside of data.sixteen_bit_range, which are clipped"
        )
        yield image_finding("warning", split, text, annotations, outside)


def suggested_range(darkest: int, brightest: int) -> SampleRange:
    """Return a range for images with values from ``darkest`` to ``brightest``: all values of its bits, if most are used."""
    bits = max(brightest.bit_length(), 8)
    full = 0, 2**bits - 1
    return full if brightest - darkest >= (full[1] + 1) / 3 else (darkest, max(brightest, darkest + 1))


def _indices_by_digest(facts: list[FileFacts]) -> dict[bytes, list[int]]:
    """Return the indices of the images by the digest of their file's content."""
    indices: dict[bytes, list[int]] = defaultdict(list)
    for n, fact in enumerate(facts):
        if fact.digest:
            indices[fact.digest].append(n)
    return indices


def _copies_within(split: str, annotations: Annotations, by_digest: dict[bytes, list[int]]) -> Iterator[Finding]:
    """Warn of files with the same content under different names in one split."""
    copies = [group for group in by_digest.values() if len({annotations.file_names[n] for n in group}) > 1]
    if copies:
        examples = [" = ".join(annotations.file_name(n) for n in group[:3]) for group in copies[:MAX_EXAMPLES]]
        text = f"{plural(len(copies), 'image is', 'images are')} stored more than once, under different names"
        yield Finding("warning", split, text, examples, [(split, group[0]) for group in copies[:MAX_EXAMPLES]])


def _copies_of_train(split: str, splits: Splits, digests: dict[str, dict[bytes, list[int]]]) -> Iterator[Finding]:
    """Warn of files of ``split`` with the content of a training image."""
    train = digests["train"]
    pairs = [(train[digest][0], indices[0]) for digest, indices in digests[split].items() if digest in train]
    examples = [f"{splits['train'].file_name(a)} = {splits[split].file_name(b)}" for a, b in pairs]
    yield from leak_findings(split, examples, [a for a, _ in pairs], "content")
