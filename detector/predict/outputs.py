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
from detector.predict.detections import Detections
from detector.predict.folder import ANNOTATED_FOLDER, CROPS_FOLDER, DESCRIPTION, PREDICTIONS, is_output_folder
from detector.predict.predictor import Predictor
from detector.predict.sources import Frame, MediaFile
from detector.predict.video_writer import AnnotatedVideo
from detector.text import plural

COLUMNS = ("file", "frame", "x1", "y1", "x2", "y2", "score", "category_id", "name")


class PredictionFiles:
    """Writes the detections of one frame after the other into the folder ``out``; a context manager.

    - ``pictures/``: the annotated images and videos, under the names of their sources.
    - ``predictions.json``: a COCO annotation file whose annotations have scores. Its image ids count from 1 in the order of
      the frames, its category ids are those of the training annotations.
    - ``predictions.csv``, if ``table``: one line per object.
    - ``crops/<class>/``, if ``crops``: every object, cut out.

    Existing files of these names are replaced. ``score_threshold``, the one in use, is written on annotated images and into
    predictions.json. ``scale_side``, the side of tiles, limits the lines on annotated images: see ``draw_boxes``.
    """

    def __init__(
        self,
        out: Path,
        predictor: Predictor,
        annotated: bool = True,
        table: bool = False,
        crops: bool = False,
        score_threshold: float | None = None,
        scale_side: int | None = None,
    ) -> None:
        self.out, self.predictor, self.annotated, self.crops = out, predictor, annotated, crops
        self.score_threshold, self.scale_side = score_threshold, scale_side
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.notes: list[str] = []  # on videos whose frames were repeated or left out
        self._video: tuple[MediaFile, AnnotatedVideo] | None = None  # the video being written
        self._crop_folders = _folder_names(predictor.class_names)
        out.mkdir(parents=True, exist_ok=True)
        if not is_output_folder(out):
            self._write_predictions()  # marks the folder: no later run takes its images as input
        # backslashreplace: names of files need not be UTF-8
        self._table = None
        if table:
            self._table = (out / "predictions.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace")
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
            image |= {"frame": frame.number, "seconds": round(frame.seconds, 6)}
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
        assert self._table is not None
        csv.writer(self._table).writerows(rows)

    def _write_crops(self, frame: Frame, detections: Detections) -> None:
        """Write every object as an image. A box narrower than a pixel gives a crop of one pixel."""
        suffix = f"_{frame.number:06d}" if frame.file.is_video else ""
        height, width = frame.image.shape[:2]
        boxes_and_labels = zip(detections.boxes.tolist(), detections.labels.tolist(), strict=True)
        for number, ((x1, y1, x2, y2), label) in enumerate(boxes_and_labels):
            left, top = min(int(x1), width - 1), min(int(y1), height - 1)
            crop = frame.image[top : max(math.ceil(y2), top + 1), left : max(math.ceil(x2), left + 1)]
            folder = self.out / CROPS_FOLDER / self._crop_folders[label]
            stem = frame.file.name.with_suffix("")
            write_image(folder / stem.with_name(f"{stem.name}{suffix}_{number}.png"), crop)

    def _write_annotated(self, frame: Frame, detections: Detections) -> None:
        boxes, labels, scores = detections.boxes.numpy(), detections.labels.numpy(), detections.scores.numpy()
        annotated = draw_boxes(frame.image, boxes, labels, self.predictor.class_names, scores, self.scale_side)
        if self.score_threshold is not None:
            annotated = draw_note(annotated, f"scores above {self.score_threshold}")
        path = self.out / ANNOTATED_FOLDER / frame.file.name
        if not frame.file.is_video:
            suffix = ".jpg" if frame.file.path.suffix.lower() in (".jpg", ".jpeg") else ".png"
            write_image(path.with_suffix(suffix), annotated)
            return
        if self._video is None or self._video[0] != frame.file:
            self._end_video()
            writer = AnnotatedVideo(path.with_suffix(".mp4"), frame.file.frame_rate, annotated.shape[:2])
            self._video = frame.file, writer
        self._video[1].write(annotated, frame.seconds)

    def _end_video(self) -> None:
        if self._video is None:
            return
        file, video = self._video
        self._video = None
        video.close()
        if video.num_repeated or video.num_left_out:
            self.notes.append(
                f"{file.path}: its frames are not evenly spaced. The annotated video has {video.frame_rate:g} frames per "
                f"second; to play at the right speed, it repeats {plural(video.num_repeated, 'frame')} and leaves out "
                f"{video.num_left_out}. predictions.json has the time of each frame"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the files, also after an error or an interruption: they then have the frames so far."""
        self._end_video()
        if self._table:
            self._table.close()
        self._write_predictions()

    def _write_predictions(self) -> None:
        predictor = self.predictor
        classes = zip(predictor.category_ids, predictor.class_names)
        info = {"description": f"{DESCRIPTION}{predictor.source}", "license_of_weights": predictor.info.license}
        content = {
            "info": info | {"score_threshold": self.score_threshold},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": category_id, "name": name} for category_id, name in classes],
        }
        with atomic_write(self.out / PREDICTIONS) as unfinished:
            # backslashreplace: in names that are not UTF-8, a byte becomes an escape of JSON, from which Python reads it
            text = json.dumps(content, ensure_ascii=False) + "\n"
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def _folder_names(class_names: list[str]) -> list[str]:
    """Return a folder's name for each class, with a number if two would be the same."""
    names: list[str] = []
    for class_name in class_names:
        name = plain = re.sub(r"[^\w .-]", "_", class_name).strip(" .")[:100] or "_"
        number = 1
        while name.casefold() in (other.casefold() for other in names):
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def write_image(path: Path, image: np.ndarray) -> None:
    """Write ``image`` (H, W, 3) uint8 RGB in the format of the suffix. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(content.tobytes())  # not cv2.imwrite, which fails for some file names on some systems
