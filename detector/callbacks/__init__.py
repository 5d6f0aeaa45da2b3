"""Callbacks of a training: averaged weights, evaluation, logs, guards. Each has its own file."""

from detector.callbacks.class_evaluation import ClassEvaluation
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.data_wait import DataWait
from detector.callbacks.ema import RampedEMA
from detector.callbacks.epoch_log import EpochLog
from detector.callbacks.non_finite_guard import NonFiniteGuard, NonFiniteLoss
from detector.callbacks.patience import Patience
from detector.callbacks.prediction_sheet import PredictionSheet
from detector.callbacks.progress_bar import RunProgressBar
from detector.callbacks.routing_log import RoutingLog
from detector.callbacks.save_on_signal import SaveOnSignal, StoppedBySignal
from detector.callbacks.time_estimate import TimeEstimate

__all__ = [
    "ClassEvaluation",
    "CocoEvaluation",
    "DataWait",
    "EpochLog",
    "NonFiniteGuard",
    "NonFiniteLoss",
    "Patience",
    "PredictionSheet",
    "RampedEMA",
    "RoutingLog",
    "RunProgressBar",
    "SaveOnSignal",
    "StoppedBySignal",
    "TimeEstimate",
]
