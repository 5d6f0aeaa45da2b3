"""What a prediction leaves on disk: annotated images and videos, predictions.json, and on demand a table and crops."""

import csv
import json
import math
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from detector.batch import xyxy_to_xywh
from detector.files import atomic_write
from detector.imaging.draw import draw_boxes
from detector.predict.predictor import Detections, Predictor
from detector.predict.sources import Frame, Source

COLUMNS = ("file", "frame", "x1", "y1", "x2", "y2", "score", "category_id", "name")


class PredictionFiles:
    """Writes the detections of one frame after the other into the folder ``out``; a context manager.

    ``pictures/`` has the annotated images and videos, under the names of their sources. ``predictions.json`` is a COCO
    annotation file whose annotations have scores; its image ids count from 1 in the order of the frames, its category ids
    are those of the annotations that were trained on. ``predictions.csv`` has a line an object. ``crops/<class>/`` has the
    objects cut out. Files that are there are replaced.
    """

    def __init__(self, out: Path, predictor: Predictor, annotated: bool = True, table: bool = False, crops: bool = False):
        self.out, self.predictor, self.annotated, self.crops = out, predictor, annotated, crops
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._video: tuple[Source, cv2.VideoWriter] | None = None
        out.mkdir(parents=True, exist_ok=True)
        self._table = (out / "predictions.csv").open("w", newline="", encoding="utf-8") if table else None
        if self._table:
            csv.writer(self._table).writerow(COLUMNS)

    def add(self, frame: Frame, found: Detections) -> None:
        """Write what was found in ``frame``."""
        height, width = frame.image.shape[:2]
        entry = {"id": len(self.images) + 1, "file_name": str(frame.source.path), "height": height, "width": width}
        if frame.source.frames is not None:
            entry |= {"frame": frame.number, "seconds": round(frame.number / frame.source.rate, 3)}
        self.images.append(entry)
        rows = list(zip(found.boxes.tolist(), found.scores.tolist(), found.category_ids, found.names, strict=True))
        for bbox, (_, score, category_id, _) in zip(xyxy_to_xywh(found.boxes.double()).tolist(), rows):
            box = {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
            ids = {"id": len(self.annotations) + 1, "image_id": entry["id"], "category_id": category_id}
            self.annotations.append(ids | box | {"score": score})
        if self._table:
            number = "" if frame.source.frames is None else frame.number
            lines = ([entry["file_name"], number, *box, score, id_, name] for box, score, id_, name in rows)
            csv.writer(self._table).writerows(lines)
        if self.crops:
            self._cut(frame, found)
        if self.annotated:
            self._draw(frame, found)

    def _cut(self, frame: Frame, found: Detections) -> None:
        """Write every object as an image; one that is narrower than a pixel still gets one."""
        suffix = "" if frame.source.frames is None else f"_{frame.number:06d}"
        height, width = frame.image.shape[:2]
        for number, ((x1, y1, x2, y2), name) in enumerate(zip(found.boxes.tolist(), found.names, strict=True)):
            left, top = min(int(x1), width - 1), min(int(y1), height - 1)
            crop = frame.image[top : max(math.ceil(y2), top + 1), left : max(math.ceil(x2), left + 1)]
            folder = self.out / "crops" / (re.sub(r"[^\w .-]", "_", name).strip(" .") or "_")
            stem = frame.source.name.with_suffix("")
            write_image(folder / stem.with_name(f"{stem.name}{suffix}_{number}.png"), crop)

    def _draw(self, frame: Frame, found: Detections) -> None:
        arrays = found.boxes.numpy(), found.labels.numpy()
        drawn = draw_boxes(frame.image, *arrays, self.predictor.class_names, found.scores.numpy())
        if frame.source.frames is None:
            suffix = ".jpg" if frame.source.path.suffix.lower() in (".jpg", ".jpeg") else ".png"
            write_image(self.out / "pictures" / frame.source.name.with_suffix(suffix), drawn)
            return
        if self._video is None or self._video[0] != frame.source:
            self._end_video()
            path = self.out / "pictures" / frame.source.name.with_suffix(".mp4")
            self._video = frame.source, _video_writer(path, frame.source.rate, drawn.shape[:2])
        self._video[1].write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    def _end_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the files; after an error or an interruption, too, with what there is."""
        self._end_video()
        if self._table:
            self._table.close()
        info = self.predictor.info
        content = {
            "info": {"description": f"detections of {self.predictor.source}", "license_of_weights": info.license},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [
                {"id": i, "name": name} for i, name in zip(self.predictor.category_ids, self.predictor.class_names)
            ],
        }
        with atomic_write(self.out / "predictions.json") as unfinished:
            unfinished.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def write_image(path: Path, image: np.ndarray) -> None:
    """Write ``image`` (H, W, 3) uint8 RGB in the format of the suffix, making folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(content.tobytes())  # not imwrite, which cannot take every file name everywhere


def _video_writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size[::-1])
    if not writer.isOpened():
        raise ValueError(f"{path}: this build of OpenCV cannot write MPEG-4 video; give --no_images")
    return writer
