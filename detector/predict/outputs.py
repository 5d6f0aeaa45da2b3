"""Files of a prediction: annotated images and videos, predictions.json, and optionally predictions.csv and crops."""

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
from detector.imaging.draw import draw_boxes, draw_note
from detector.predict.predictor import Detections, Predictor
from detector.predict.sources import Frame, MediaFile

ANNOTATED_FOLDER = "pictures"  # the name on disk stays as in earlier versions
COLUMNS = ("file", "frame", "x1", "y1", "x2", "y2", "score", "category_id", "name")


class PredictionFiles:
    """Writes the detections of one frame after the other into the folder ``out``; a context manager.

    - ``pictures/``: the annotated images and videos, under the names of their sources.
    - ``predictions.json``: a COCO annotation file whose annotations have scores. Its image ids count from 1 in the order of
      the frames, its category ids are those of the training annotations.
    - ``predictions.csv``, if ``table``: one line per object.
    - ``crops/<class>/``, if ``crops``: every object, cut out.

    Existing files of these names are replaced. ``score_threshold``, the one in use, is written on annotated images and into
    predictions.json.
    """

    def __init__(
        self,
        out: Path,
        predictor: Predictor,
        annotated: bool = True,
        table: bool = False,
        crops: bool = False,
        score_threshold: float | None = None,
    ) -> None:
        self.out, self.predictor, self.annotated, self.crops = out, predictor, annotated, crops
        self.score_threshold = score_threshold
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._video: tuple[MediaFile, cv2.VideoWriter] | None = None  # the video being written
        out.mkdir(parents=True, exist_ok=True)
        self._table = (out / "predictions.csv").open("w", newline="", encoding="utf-8") if table else None
        if self._table:
            csv.writer(self._table).writerow(COLUMNS)

    def add(self, frame: Frame, detections: Detections) -> None:
        """Write the detections in ``frame``."""
        self._record(frame, detections)
        if self._table:
            self._write_rows(frame, detections)
        if self.crops:
            self._write_crops(frame, detections)
        if self.annotated:
            self._write_annotated(frame, detections)

    def _record(self, frame: Frame, detections: Detections) -> None:
        """Keep the frame and its detections as COCO entries for predictions.json."""
        height, width = frame.image.shape[:2]
        image = {"id": len(self.images) + 1, "file_name": str(frame.file.path), "height": height, "width": width}
        if frame.file.is_video:
            image |= {"frame": frame.number, "seconds": round(frame.number / frame.file.frame_rate, 3)}
        self.images.append(image)
        bboxes = xyxy_to_xywh(detections.boxes.double()).tolist()
        for bbox, score, category_id in zip(bboxes, detections.scores.tolist(), detections.category_ids, strict=True):
            ids = {"id": len(self.annotations) + 1, "image_id": image["id"], "category_id": category_id}
            box = {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
            self.annotations.append(ids | box | {"score": score})

    def _write_rows(self, frame: Frame, detections: Detections) -> None:
        number = frame.number if frame.file.is_video else ""
        columns = detections.boxes.tolist(), detections.scores.tolist(), detections.category_ids, detections.names
        rows = ([str(frame.file.path), number, *box, *others] for box, *others in zip(*columns, strict=True))
        csv.writer(self._table).writerows(rows)

    def _write_crops(self, frame: Frame, detections: Detections) -> None:
        """Write every object as an image. A box narrower than a pixel gives a crop of one pixel."""
        suffix = f"_{frame.number:06d}" if frame.file.is_video else ""
        height, width = frame.image.shape[:2]
        boxes_and_names = zip(detections.boxes.tolist(), detections.names, strict=True)
        for number, ((x1, y1, x2, y2), name) in enumerate(boxes_and_names):
            left, top = min(int(x1), width - 1), min(int(y1), height - 1)
            crop = frame.image[top : max(math.ceil(y2), top + 1), left : max(math.ceil(x2), left + 1)]
            folder = self.out / "crops" / (re.sub(r"[^\w .-]", "_", name).strip(" .") or "_")
            stem = frame.file.name.with_suffix("")
            write_image(folder / stem.with_name(f"{stem.name}{suffix}_{number}.png"), crop)

    def _write_annotated(self, frame: Frame, detections: Detections) -> None:
        boxes, labels, scores = detections.boxes.numpy(), detections.labels.numpy(), detections.scores.numpy()
        annotated = draw_boxes(frame.image, boxes, labels, self.predictor.class_names, scores)
        if self.score_threshold is not None:
            annotated = draw_note(annotated, f"scores above {self.score_threshold}")
        path = self.out / ANNOTATED_FOLDER / frame.file.name
        if not frame.file.is_video:
            suffix = ".jpg" if frame.file.path.suffix.lower() in (".jpg", ".jpeg") else ".png"
            write_image(path.with_suffix(suffix), annotated)
            return
        if self._video is None or self._video[0] != frame.file:
            self._end_video()
            writer = _video_writer(path.with_suffix(".mp4"), frame.file.frame_rate, annotated.shape[:2])
            self._video = frame.file, writer
        self._video[1].write(cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))

    def _end_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the files, also after an error or an interruption: they then have the frames so far."""
        self._end_video()
        if self._table:
            self._table.close()
        predictor = self.predictor
        classes = zip(predictor.category_ids, predictor.class_names)
        info = {"description": f"detections of {predictor.source}", "license_of_weights": predictor.info.license}
        content = {
            "info": info | {"score_threshold": self.score_threshold},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": category_id, "name": name} for category_id, name in classes],
        }
        with atomic_write(self.out / "predictions.json") as unfinished:
            unfinished.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def write_image(path: Path, image: np.ndarray) -> None:
    """Write ``image`` (H, W, 3) uint8 RGB in the format of the suffix. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(content.tobytes())  # not cv2.imwrite, which fails for some file names on some systems


def _video_writer(path: Path, frame_rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frame_rate, size[::-1])
    if not writer.isOpened():
        raise ValueError(f"{path}: this build of OpenCV cannot write MPEG-4 video; give --no_images")
    return writer
