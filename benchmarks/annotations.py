"""Measure how long a file of COCO's size takes to open, and the memory of workers over epochs.

``python -m benchmarks.annotations`` (about 5 minutes) writes two random sets to a temporary folder (0.4 GB), and the results
to ``benchmarks/results/annotations.json``:

1. An annotation file like COCO's ``instances_train2017.json``: 118,287 images, 860,001 objects with polygons. Measured are
   the seconds to read and check it, and those of Python's ``json.load`` and of pycocotools' ``COCO(file)``.
2. 100,000 images (entries that share 64 small files), 4 workers, 3 epochs with mosaic. Measured is the proportional memory
   of the workers (PSS, Linux) through each epoch.
"""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO

from benchmarks.common import option_parser, write
from benchmarks.yard import milliseconds
from data import CocoDataModule
from data.coco import read_coco

IMAGES, OBJECTS, CLASSES = 118_287, 860_001, 80  # of COCO 2017's training set
GOAL_SECONDS = 15.0
READINGS = 8  # of the memory, in each epoch


def make_coco_sized(folder: Path) -> Path:
    """Write an annotation file as large as COCO's, and empty image files; return its path."""
    rng = np.random.default_rng(0)
    ids = (rng.permutation(IMAGES) + 1).tolist()
    (folder / "images").mkdir()
    for id_ in ids:
        (folder / "images" / f"{id_:012d}.jpg").touch()
    size = {"height": 480, "width": 640}
    images = [{"id": i, "file_name": f"{i:012d}.jpg", **size, "license": 3, "date_captured": "2013-11-14"} for i in ids]
    image_indices, classes = rng.integers(0, IMAGES, OBJECTS), rng.integers(1, CLASSES + 1, OBJECTS)
    corners, points = rng.random((OBJECTS, 4)), rng.integers(6, 30, OBJECTS)
    path = folder / "instances.json"
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": ' + json.dumps(images) + ', "annotations": [')
        rows = zip(image_indices.tolist(), classes.tolist(), corners, points.tolist())
        for n, (image_index, label, corner, count) in enumerate(rows):
            x, y, width, height = (corner * [500, 350, 130, 120]).round(2).tolist()
            entry = {"segmentation": [(rng.random(2 * count) * 400).round(2).tolist()], "area": round(width * height, 3)}
            entry |= {"iscrowd": 0, "image_id": ids[image_index], "bbox": [x, y, width + 1, height + 1]}
            entry |= {"category_id": label, "id": n + 1}
            file.write((", " if n else "") + json.dumps(entry))
        file.write('], "categories": ' + json.dumps(categories(CLASSES)) + "}")
    return path


def categories(number: int) -> list[dict[str, Any]]:
    """Return the categories of an annotation file."""
    return [{"id": n + 1, "name": f"class {n}"} for n in range(number)]


def time_opening(path: Path) -> dict[str, float]:
    """Return the seconds to read and check the file, and those of two readers without checks."""
    readers: dict[str, Callable[[], object]] = {
        "read and checked here": lambda: read_coco(path, path.parent / "images"),
        "json.load": lambda: json.loads(path.read_bytes()),
        "pycocotools": lambda: COCO(str(path)),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        return {name: milliseconds(read) / 1e3 for name, read in readers.items()}


def make_many_images(folder: Path, count: int, files: int = 64) -> Path:
    """Write ``files`` small images, and an annotation file with ``count`` entries for them, three objects each."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for n in range(files):
        cv2.imwrite(str(folder / "images" / f"{n}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    images = [{"id": n + 1, "file_name": f"{n % files}.png", "height": 32, "width": 32} for n in range(count)]
    area = {"area": 160, "iscrowd": 0}
    annotations = [
        {"id": 3 * n + k + 1, "image_id": n + 1, "category_id": 1 + k, "bbox": [2 + 8 * k, 4, 8, 20], **area}
        for n in range(count)
        for k in range(3)
    ]
    path = folder / "many.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories(3)}))
    return path


def pss_mb(process: int) -> float:
    """Return the proportional set size of a process: its own memory, and its part of shared memory."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def watch_workers(path: Path, workers: int = 4, epochs: int = 3) -> list[list[float]]:
    """Return the memory of all workers together in MB, READINGS times in each epoch."""
    layout = {"annotations": path.name, "images": "images"}
    files = {f"{split}_{key}": value for split in ("train", "val") for key, value in layout.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # train and val are the same images
        data = CocoDataModule(root=str(path.parent), **files, image_size=32, batch_size=64, num_workers=workers)
    loader = data.train_dataloader()
    readings = []
    for _ in range(epochs):
        interval, epoch_readings = max(len(loader) // READINGS, 1), []
        batches = iter(loader)
        processes = [worker.pid for worker in batches.batches._workers]
        for number, _batch in enumerate(batches, start=1):
            if number % interval == 0 and len(epoch_readings) < READINGS:
                epoch_readings.append(sum(pss_mb(process) for process in processes))
        readings.append(epoch_readings)
    return readings


def main() -> None:
    """Measure, print and write the results."""
    parser = option_parser(__doc__)
    parser.add_argument("--images", "--pictures", type=int, default=100_000, help="of the second set (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_coco_sized(Path(folder))
        size = path.stat().st_size / 1e6
        seconds = time_opening(path)
    print(f"opening {IMAGES:,} images and {OBJECTS:,} objects, {size:.0f} MB (goal: {GOAL_SECONDS:g} s):")
    for name, spent in seconds.items():
        print(f"  {name:<24}{spent:>8.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        readings = watch_workers(make_many_images(Path(folder), args.images))
    print(f"memory of 4 workers, PSS in MB, {READINGS} times in each epoch over {args.images:,} images:")
    for epoch, epoch_readings in enumerate(readings):
        print(f"  epoch {epoch}: " + " ".join(f"{value:.0f}" for value in epoch_readings))
    write("annotations", {"opening_seconds": seconds, "file_mb": size, "worker_mb": readings})


if __name__ == "__main__":
    main()
