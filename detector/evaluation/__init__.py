"""COCO evaluation without a trainer: annotation and results files, metrics and their table."""

from detector.evaluation.backends import Backend, check_backend
from detector.evaluation.coco_eval import METRICS, CocoResult, coco_table, evaluate, run_coco_eval
from detector.evaluation.coco_files import (
    detection_rows,
    load_ground_truth,
    read_predictions,
    write_ground_truth,
    write_predictions,
)
from detector.evaluation.thresholds import OperatingPoint

__all__ = [
    "METRICS", "Backend", "CocoResult", "OperatingPoint", "check_backend", "coco_table", "detection_rows", "evaluate",
    "load_ground_truth", "read_predictions", "run_coco_eval", "write_ground_truth", "write_predictions",
]  # fmt: skip
