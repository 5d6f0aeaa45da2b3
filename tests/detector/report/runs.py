"""Run folders as training leaves them, made without training."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.evaluation.coco_files import load_ground_truth, write_ground_truth, write_predictions
from tests.detector.report.cases import random_case

CONFIG = """# lightning.pytorch==2.6.6
trainer: {max_epochs: 4}
model: {variant: dyn_n}
data: {root: somewhere, image_size: 64, val_annotations: val.json, val_images: val}
evaluation: {branch: both}
"""
ROUTING = "routing/a.conv1/"
METRICS = f"""epoch,step,train/lr,train/total,train/one2one/box,val/AP,val/AP50,val/total,{ROUTING}expert0,{ROUTING}entropy
0,1,,,,0.1,0.2,5.0,,
0,1,,,,,,,0.6,0.97
0,1,0.01,6.0,2.0,,,,,
1,3,,,,0.3,0.5,4.0,,
1,3,0.005,4.5,1.5,,,,,
"""
LOG = """   epoch     total        lr    val/AP   train_s     val_s  images/s
       0       6.0      0.01    0.1000       2.0       1.0       4.0
       1       4.5     0.005         -       1.0       1.0       8.0
"""


def make_run(folder: Path, seed: int = 0) -> Path:
    """Write a run with both branches' predictions, images and logs, but no checkpoint, into ``folder``."""
    content, detections = random_case(seed)
    write_run(folder, content, detections, folder.parent / "pictures")
    write_predictions(folder / "predictions_one2many.json", detections[::2])
    return folder


def write_run(folder: Path, content: dict[str, Any], detections: np.ndarray, images: Path | None) -> Path:
    """Write a run whose validation found ``detections`` (N, 7) in images that are painted into ``images``."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "train.log").write_text(LOG)
    (folder / "run.json").write_text(json.dumps({"command": "train.py", "packages": {"torch": "2.14.0"}, "git": None}))
    if images is not None:
        images.mkdir()
        random = np.random.default_rng(0)
        for image in content["images"]:
            noise = random.integers(0, 255, (image["height"], image["width"], 3), dtype=np.uint8)
            cv2.imwrite(str(images / image["file_name"]), noise)
        content = {**content, "info": {"pictures": str(images), "upright": False}}
    coco = load_ground_truth(content)
    write_ground_truth(folder / "ground_truth.json", coco, list(coco.imgs))
    write_predictions(folder / "predictions.json", detections)
    return folder
