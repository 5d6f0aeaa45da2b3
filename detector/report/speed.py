"""Size of the network of a checkpoint, and its speed on this machine."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detector.batch import Size
from detector.network.classifier import Classifier
from detector.network.head import BranchName
from detector.network.model import to_channels_last
from detector.predict import load_detector
from detector.report.page import Table
from detector.text import plural
from detector.weights import WeightsInfo
from detector.weights.classifier import build_classifier_from, read_classifier

RUNS, WARM_UP, MOST_SECONDS = 20, 3, 10.0
DEFAULT_CLASS_SIZE = (224, 224)  # height, width, of a classifier whose file does not say it


@dataclass(frozen=True)
class Speed:
    """Size of a deployed network, and its speed with one image at a time."""

    branch: str
    machine: str
    table: Table


@torch.inference_mode()
def measure(checkpoint: Path, branch: BranchName = "one2one") -> Speed:
    """Run the network of ``checkpoint`` on the CPU: one image at a time, without reading and scaling images."""
    predictor = load_detector(checkpoint)
    model = to_channels_last(predictor.model.deploy(branch))
    images = random_image(predictor.image_size)
    costs = _costs(model, images, lambda: model.detect(images, branch))
    parameters = [
        ["parameters, as trained", f"{_count_parameters(predictor.model):,}"],
        ["parameters, deployed (one branch, normalization folded)", f"{_count_parameters(model):,}"],
    ]
    return Speed(branch, _machine(), Table(["", "value"], [*parameters, *costs, *_origin(predictor.info)]))


@torch.inference_mode()
def measure_classifier(checkpoint: Path) -> Speed:
    """Run the classifier of ``checkpoint`` on the CPU: one image at a time, without reading and scaling images."""
    file = read_classifier(checkpoint)
    model = to_channels_last(build_classifier_from(file).eval())
    images = random_image(file.pretraining.image_size or DEFAULT_CLASS_SIZE)
    costs = _costs(model, images, lambda: model(images))
    parameters = [
        ["parameters, with the classifier", f"{_count_parameters(model):,}"],
        ["parameters of the part that starts a detector", f"{_count_trunk(model):,}"],
    ]
    return Speed("", _machine(), Table(["", "value"], [*parameters, *costs, *_origin(file.pretraining)]))


def random_image(size: Size) -> Tensor:
    """Return a batch with one image of noise, (1, 3, H, W), of ``size`` (height, width)."""
    return torch.rand(1, 3, *size).contiguous(memory_format=torch.channels_last)


def _costs(model: nn.Module, images: Tensor, run: Callable[[], object]) -> list[list[str]]:
    """Return the operations of ``model`` on ``images``, and the time that ``run`` takes."""
    height, width = images.shape[-2:]
    with FlopCounterMode(display=False) as counter:
        model(images)  # a multiplication and an addition are two operations
    times = _measure_times(run)
    return [
        [f"GFLOPs of a {width} x {height} image", f"{counter.get_total_flops() / 1e9:.2f}"],
        ["milliseconds per image, median", f"{np.median(times) * 1000:.1f}"],
        ["milliseconds per image, 95th percentile", f"{np.percentile(times, 95) * 1000:.1f}"],
    ]


def _origin(info: WeightsInfo) -> list[list[str]]:
    images = info.images_of_pretraining
    rows = [["license of the weights", info.license or "not stated"]]
    return [*rows, ["images of the pre-training", images]] if images else rows


def _machine() -> str:
    return f"{platform.machine()} CPU, {plural(torch.get_num_threads(), 'thread')}, PyTorch {torch.__version__}"


def _measure_times(run: Callable[[], object]) -> list[float]:
    """Return the seconds of each run."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    while len(times) < RUNS and sum(times) < MOST_SECONDS:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _count_trunk(classifier: Classifier) -> int:
    """Return the parameters of a classifier that become the backbone of a detector."""
    trunk = set(classifier.trunk)
    return sum(parameter.numel() for name, parameter in classifier.network.named_parameters() if name in trunk)
