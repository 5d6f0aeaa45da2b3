"""Compare a checkpoint of the public reference, run here, with the values measured on the reference.

``python -m benchmarks.reference_checkpoint --checkpoints checkpoints --root datasets/bccd`` converts
``yolo26n-bccd.pt`` and prints raw outputs, AP of both branches and single detections on the validation set beside the
reference's. Takes a minute or two.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

from benchmarks.common import option_parser, print_table, write
from benchmarks.runs import annotations_file
from detector.batch import xywh_to_xyxy
from detector.evaluation import detection_rows, evaluate, load_ground_truth
from detector.imaging.letterbox import letterbox, to_original
from detector.network.decode import decode
from detector.network.head import BRANCHES
from detector.predict import Predictor, load_detector

NAME = "yolo26n-bccd"
SHOWN = ("AP", "AP50", "AP75", "AR100", "detections")


def read_rgb(path: Path) -> np.ndarray:
    """Return the image as stored, RGB: annotations are of stored pixels."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)


@torch.inference_mode()
def run(predictor: Predictor, images: list[dict[str, Any]], folder: Path) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Return the detections of each branch as (N, 7) rows, see ``detection_rows``, and statistics of the raw outputs."""
    rows: dict[str, list[np.ndarray]] = {branch: [] for branch in BRANCHES}
    raw = []
    ids = np.arange(1, 1 + len(predictor.class_names))
    for image in images:
        canvas, placement = letterbox(read_rgb(folder / image["file_name"]), predictor.image_size, scale_up=False)
        batch = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255
        outputs = predictor.model(batch)
        statistics = {}
        for branch in BRANCHES:
            (detections,) = decode(outputs, branch)
            boxes = to_original(detections["boxes"], placement).numpy()
            scores, labels = detections["scores"].numpy(), detections["labels"].numpy()
            rows[branch].append(detection_rows(image["id"], boxes, scores, ids[labels]))
            statistics[branch] = {kind: (v.mean().item(), v.abs().mean().item()) for kind, v in outputs[branch].items()}
        raw.append(statistics)
    return {branch: np.concatenate(parts) for branch, parts in rows.items()}, raw


def compare_raw(raw: list[dict], golden: list[dict]) -> float:
    """Return the largest difference of a mean or mean absolute raw output, relative to the mean absolute output."""
    largest = 0.0
    for ours, theirs in zip(raw, golden):
        for branch in BRANCHES:
            for kind, (mean, abs_mean) in ours[branch].items():
                expected = theirs[branch][kind]
                difference = max(abs(mean - expected["mean"]), abs(abs_mean - expected["abs_mean"]))
                largest = max(largest, difference / expected["abs_mean"])
    return largest


def compare_detections(rows: np.ndarray, theirs: list[dict[str, Any]]) -> dict[str, float]:
    """Match each detection of the reference with ours of the same image and class that overlaps it most."""
    scores, ious, pixels = [], [], []
    for detection in theirs:
        same = rows[(rows[:, 0] == detection["image_id"]) & (rows[:, 6] == detection["category_id"])]
        boxes, box = xywh_to_xyxy(same[:, 1:5]), xywh_to_xyxy(np.array([detection["bbox"]]))
        overlap = box_iou(torch.from_numpy(box), torch.from_numpy(boxes))[0].numpy()
        best = int(overlap.argmax())
        ious.append(float(overlap[best]))
        scores.append(abs(float(same[best, 5]) - detection["score"]))
        pixels.append(float(np.abs(boxes[best] - box[0]).max()))
    return {
        "theirs": len(theirs),
        "ours": int((rows[:, 5] > 0.25).sum()),
        "smallest IoU": min(ious),
        "largest difference of a score": max(scores),
        "largest difference of a coordinate, px": max(pixels),
    }


def compare_metrics(truth: Any, rows: dict[str, np.ndarray], golden: dict[str, dict]) -> dict[str, tuple[float, float]]:
    """Print and return each metric of each branch: our value and the reference's."""
    metrics = {branch: evaluate(truth, rows[branch]).metrics | {"detections": len(rows[branch])} for branch in BRANCHES}
    result, lines = {}, []
    for branch, name in product(BRANCHES, SHOWN):
        ours, theirs = metrics[branch][name], golden[branch][name]
        result[f"{branch} {name}"] = ours, theirs
        lines.append((f"{branch} {name}", f"{ours:.5g}", f"{theirs:.5g}", f"{ours - theirs:.2g}"))
    print_table(("", "ours", "reference", "difference"), *lines)
    return result


def images_of(annotations: Path) -> list[dict[str, Any]]:
    """Return the images of an annotation file, sorted by id."""
    return sorted(json.loads(annotations.read_text())["images"], key=lambda image: image["id"])


def main() -> None:
    """Load, run, compare, print and write."""
    defaults = {"checkpoints": Path("checkpoints"), "root": Path("datasets/bccd")}
    args = option_parser(__doc__, **defaults).parse_args()
    predictor = load_detector(args.checkpoints / f"{NAME}.pt")
    golden = json.loads((args.checkpoints / f"{NAME}-val.json").read_text())
    annotations = annotations_file(args.root)
    rows, raw = run(predictor, images_of(annotations), args.root / "val")
    difference = compare_raw(raw, golden["raw_first_images"])
    result: dict[str, Any] = {"raw outputs, largest relative difference": difference}
    print(f"{predictor.source}\n{predictor.info.provenance}")
    print(f"raw outputs of two images: largest difference {difference:.1e} of the mean |value|")
    result |= compare_metrics(load_ground_truth(annotations), rows, golden)
    detections = json.loads((args.checkpoints / f"{NAME}-val-detections.json").read_text())
    result["detections above 0.25"] = compare_detections(rows["one2one"], detections)
    for name, value in result["detections above 0.25"].items():
        print(f"NMS-free detections above 0.25: {name:<40}{value:.5g}")
    write("reference_checkpoint", result)


if __name__ == "__main__":
    main()
