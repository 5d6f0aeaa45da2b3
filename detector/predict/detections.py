"""The detections in one image: look at, choose from, draw and convert them."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from detector.arguments import as_number, as_whole_number, shown
from detector.batch import Size
from detector.extras import check_installed
from detector.files import atomic_write
from detector.imaging.draw import draw_boxes, fit_longer_side
from detector.imaging.sixteen_bits import FULL_RANGE, SampleRange
from detector.option_errors import named_arguments
from detector.predict.pixels import Image, as_array
from detector.text import plural, score_text, unknown_name

if TYPE_CHECKING:
    import supervision

SHOWN_OBJECTS = 10  # in the text of ``Detections``
NOTEBOOK_SIDE = 1280  # pixels of the longer side of an image in a notebook, at most
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # of ``save``


class DetectedObject(NamedTuple):
    """One object of an image."""

    box: tuple[float, float, float, float]  # x1 y1 x2 y2 in pixels of the original image
    score: float  # in 0..1
    label: int  # 0..C-1
    name: str  # of the class
    category_id: int  # in the training annotations

    def __str__(self) -> str:
        return (
            f"{self.name} {score_text(cast(float, np.float32(self.score)))}"  # as on images: 0.567, not 0.566 for 0.56699997
        )


@dataclass(frozen=True, repr=False, eq=False)
class Detections:
    """The objects found in one image, best first. Tensors are on the CPU.

    It is a sequence: ``len(detections)``, ``for found in detections`` and ``detections[0]`` give a ``DetectedObject``.
    ``detections[:3]``, ``detections[detections.scores > 0.5]`` and ``detections["cat"]`` give ``Detections`` with fewer
    objects, as ``filter`` does. Two are equal if their objects are; their images are not compared.
    """

    boxes: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the original image
    scores: Tensor  # (N,) in 0..1
    labels: Tensor  # (N,) int64, 0..C-1
    names: list[str]  # N class names
    category_ids: list[int]  # N category ids of the training annotations
    # The image as it was given (a path stays a path), for ``plot``. None if it came from a generator, which may have many.
    image: Image | None = None
    class_names: Sequence[str] = ()  # C names of the detector; () if they are not known
    sixteen_bit_range: SampleRange = FULL_RANGE  # of an image with 16 bits, see ``plot``
    image_size: Size | None = None  # (height, width) that ``boxes`` are of; None if not known

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        tensors = ((self.boxes, other.boxes), (self.scores, other.scores), (self.labels, other.labels))
        is_same = self.names == other.names and self.category_ids == other.category_ids
        return is_same and all(torch.equal(mine, others) for mine, others in tensors)

    def __repr__(self) -> str:
        """For example "2 objects: raccoon 0.56, raccoon 0.34"."""
        objects = ", ".join(str(self[n]) for n in range(min(len(self), SHOWN_OBJECTS)))
        more = f", and {len(self) - SHOWN_OBJECTS} more" if len(self) > SHOWN_OBJECTS else ""
        return f"{plural(len(self), 'object')}: {objects}{more}" if len(self) else "no objects"

    def __iter__(self) -> Iterator[DetectedObject]:
        return (self[n] for n in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> DetectedObject: ...

    @overload
    def __getitem__(self, key: Any) -> "Detections": ...

    def __getitem__(self, key: Any) -> "DetectedObject | Detections":
        """Return one object for a number, or ``Detections`` for a slice, a mask (N,), numbers, or the name of a class."""
        if isinstance(key, str):
            return self.filter(classes=[key])
        chosen = _chosen(key, len(self))
        if isinstance(chosen, int):
            box, score, label = self.boxes[chosen].tolist(), self.scores[chosen].item(), int(self.labels[chosen])
            return DetectedObject(tuple(box), score, label, self.names[chosen], self.category_ids[chosen])
        names, category_ids = [self.names[n] for n in chosen], [self.category_ids[n] for n in chosen]
        rows = torch.tensor(chosen, dtype=torch.int64)
        boxes, scores, labels = self.boxes[rows], self.scores[rows], self.labels[rows]
        return replace(self, boxes=boxes, scores=scores, labels=labels, names=names, category_ids=category_ids)

    @named_arguments
    def filter(self, score_threshold: float = 0.0, classes: Iterable[str | int] | None = None) -> "Detections":
        """Return the objects whose scores exceed ``score_threshold``, of ``classes`` (names or labels; default: all).

        The default keeps every score. Raises ValueError for a class that the detector does not have.
        """
        score_threshold = as_number(score_threshold, "score_threshold")
        keep = self.scores > score_threshold if score_threshold else torch.ones(len(self), dtype=torch.bool)
        if classes is not None:
            classes = self._checked_classes(classes)
            keep &= torch.tensor([self._is_any_of(n, classes) for n in range(len(self))], dtype=torch.bool)
        return self[keep]

    def _is_any_of(self, number: int, classes: Sequence[str | int]) -> bool:
        return self.names[number] in classes or int(self.labels[number]) in [c for c in classes if not isinstance(c, str)]

    def _checked_classes(self, classes: Iterable[str | int]) -> list[str | int]:
        is_one = isinstance(classes, str | bytes) or getattr(classes, "ndim", 1) == 0
        if is_one or not isinstance(classes, Iterable):
            raise ValueError(f"classes is {shown(classes)}; expected a list of names or labels, e.g. ['cat']")
        classes = list(classes)
        for choice in classes:
            if isinstance(choice, str):
                if self.class_names and choice not in self.class_names:
                    raise ValueError(unknown_name("class", choice, dict.fromkeys(self.class_names)))
            elif as_whole_number(choice, "a label of classes", 0) >= len(self.class_names) > 0:
                raise ValueError(f"classes has the label {choice}; this detector's are 0 to {len(self.class_names) - 1}")
        return classes

    @named_arguments
    def plot(self, image: Image | None = None) -> PIL.Image.Image:
        """Return a copy of the image with boxes, names and scores.

        ``image`` is the image of these detections, in any form that a Predictor takes. It may be left out, unless the
        Predictor was given a generator. Raises ValueError for an image of another size.
        """
        return PIL.Image.fromarray(self._annotated(self._pixels(image)))

    @named_arguments
    def save(self, path: str | Path, image: Image | None = None) -> None:
        """Write ``plot(image)`` to ``path``, a .jpg, .png or .webp. An existing file is replaced; missing folders are made.

        Raises ValueError for another path, and if the file cannot be written.
        """
        if not isinstance(path, str | os.PathLike):
            raise ValueError(f"path is {shown(path)}; expected the path of an image file, as 'found.jpg'")
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the name of a file in it, as {path / 'found.jpg'}")
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path} is no name of an image file; expected one that ends in {', '.join(SUFFIXES)}")
        annotated = self.plot(image)
        file_format = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
        try:
            with atomic_write(path) as unfinished:
                annotated.save(unfinished, file_format, quality=95)
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(
                f"{path} cannot be written ({reason}); give the name of a file in a folder that you may write to"
            ) from error

    def _repr_png_(self) -> bytes | None:
        """Return the annotated image for a notebook, reduced if it is large; None if it is not known: the text is shown."""
        try:
            pixels, boxes = self._pixels(None), self.boxes.numpy()
        except ValueError:  # no image, or its file is gone
            return None
        if max(pixels.shape[:2]) > NOTEBOOK_SIDE:
            pixels, boxes = fit_longer_side(pixels, boxes, NOTEBOOK_SIDE)
        content = io.BytesIO()
        PIL.Image.fromarray(self._annotated(pixels, boxes)).save(content, "PNG")
        return content.getvalue()

    def _pixels(self, image: Image | None) -> np.ndarray:
        image = self.image if image is None else image
        if image is None:
            raise ValueError(
                "these detections do not have their image, as it came from a generator or they were built by hand; "
                "give it: plot(image)"
            )
        pixels = as_array(image, self.sixteen_bit_range)
        if self.image_size is not None and pixels.shape[:2] != self.image_size:
            sizes = [f"{height} x {width}" for height, width in (pixels.shape[:2], self.image_size)]
            raise ValueError(
                f"the image is {sizes[0]}, but these detections are of one of {sizes[1]} (height x width): their boxes "
                "would be misplaced; give the image that the Predictor was given"
            )
        return pixels

    def _annotated(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
        names: Mapping[int, str] = dict(zip(self.labels.tolist(), self.names))
        boxes = self.boxes.numpy() if boxes is None else boxes
        return draw_boxes(pixels, boxes, self.labels.numpy(), names, self.scores.numpy())

    def to_torchvision(self) -> dict[str, Tensor]:
        """Return ``boxes``, ``scores`` and ``labels`` as torchvision's detectors return them, but labels count from 0."""
        return {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}

    def to_supervision(self) -> "supervision.Detections":
        """Return ``supervision.Detections`` with the names as ``data["class_name"]``; needs the extra ``track``."""
        check_installed("to_supervision", "supervision")
        import supervision

        boxes, scores, labels = self.boxes.numpy(), self.scores.numpy(), self.labels.numpy()
        data: dict[str, Any] = {"class_name": np.array(self.names, dtype=str)}
        return supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels, data=data)


def _chosen(key: Any, length: int) -> int | list[int]:
    """Return the number of an object, or the numbers of several, for an index of ``length`` objects."""
    if isinstance(key, slice):
        return list(range(length))[key]
    try:
        values = np.asarray(key)
    except ValueError:  # lists of several lengths in a list
        values = np.asarray(key, object)
    if values.ndim == 0 and values.dtype.kind in "iu":
        return _place(int(values), length)
    if values.ndim == 1 and values.dtype.kind == "b" and len(values) == length:
        return values.nonzero()[0].tolist()
    if values.ndim == 1 and (values.dtype.kind in "iu" or not len(values)) and values.dtype.kind != "b":
        return [_place(int(value), length) for value in values]
    raise IndexError(
        f"the index is {shown(key)}; expected a number, a slice, a mask of {length} (True or False for each object), "
        "numbers, or the name of a class"
    )


def _place(number: int, length: int) -> int:
    """Return the place of object ``number`` of ``length`` objects; a negative one counts from the end."""
    if not -length <= number < length:
        raise IndexError(f"there is no object {number}: there are {plural(length, 'object')}, counted from 0")
    return range(length)[number]
