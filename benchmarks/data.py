"""Measure the speed of training samples: beside stock albumentations, by stage, and by number of workers.

``python -m benchmarks.data --root datasets/coco128`` (about 3 minutes; a folder with the layout of COCO 2017) writes
``benchmarks/results/data.json``. The first two tables are the CPU time of one thread with decoded images in memory, in
milliseconds and in yards (see benchmarks/yard.py). The last table is the wall-clock speed of whole loaders that read
files.
"""

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch

from benchmarks.common import option_parser, write
from benchmarks.yard import median, take_turns, yard
from data import Augmentation, CocoDataModule
from data.images import read_image
from data.mosaic import map_objects, render
from data.reader import ScaledImage
from data.sampler import SampleKey
from data.transforms import shift_hsv

TARGET_MS, TARGET_YARDS, TARGET_RATIO = 6.0, 0.016, 6.0  # goals
REFERENCE_YARDS = 0.023  # of the public reference with images in memory, measured on another machine


def cpu_ms(function: Callable[[int], object], calls: int, rounds: int) -> float:
    """Return the CPU milliseconds of one call: the median over ``rounds`` of the mean over ``calls``."""
    milliseconds = []
    for _ in range(rounds):
        start = time.process_time()
        for number in range(calls):
            function(number)
        milliseconds.append((time.process_time() - start) / calls * 1e3)
    return median(milliseconds)


def stock_pipeline(size: int, augment: Augmentation) -> A.Compose:
    """Build the same recipe from albumentations' own parts: a mosaic twice as large, warped, cropped, colored, flipped."""
    hue, saturation, value = augment.hsv
    scale, shift = (1 - augment.scale, 1 + augment.scale), (-augment.translate / 2, augment.translate / 2)
    parts = [
        A.Mosaic(grid_yx=(2, 2), target_size=(2 * size, 2 * size), cell_shape=(size, size), fill=114, p=1),
        A.Affine(scale=scale, translate_percent=shift, fill=114, p=1),
        A.CenterCrop(size, size),
        A.HueSaturationValue(round(180 * hue), round(255 * saturation), round(255 * value), p=1),
        A.HorizontalFlip(p=augment.fliplr),
    ]
    boxes = A.BboxParams("pascal_voc", clip=True, filter_invalid_bboxes=True, min_width=2, min_height=2)
    return A.Compose(parts, bbox_params=boxes)


class Samples:
    """Both pipelines on the same decoded images. Each image is read once."""

    def __init__(self, data: CocoDataModule, size: int) -> None:
        self.size = size
        self.dataset = data.train_dataloader().dataset.dataset
        self.order = self.dataset.order.order(0).tolist()
        annotations = self.dataset.reader.annotations
        scaled = [self.dataset.reader.read_scaled(n, (size, size)) for n in range(len(annotations))]
        self.dataset.cache = None
        self.dataset.reader.read_scaled = lambda n, _: scaled[n]
        self.stock = stock_pipeline(size, data.augment)
        self.stock.set_random_seed(0)
        self.items = [self._item(n, scaled[n]) for n in range(len(annotations))]
        self.rng = np.random.default_rng(0)

    def _item(self, n: int, scaled: ScaledImage) -> dict[str, Any]:
        boxes, _ = self.dataset.reader.annotations.objects(n)
        objects = np.column_stack([boxes * np.array(scaled.scale * 2), np.arange(len(boxes))]).astype(np.float32)
        return {"image": scaled.image, "bboxes": objects}

    def ours(self, number: int) -> None:
        """Make a training sample with our pipeline."""
        self.dataset[SampleKey(self.order[number % len(self.order)], number // len(self.order), (self.size, self.size))]

    def albumentations(self, number: int) -> None:
        """Make a training sample with the stock pipeline; its partners are random like ours."""
        partners = [self.items[n] for n in self.rng.integers(len(self.items), size=3)]
        self.stock(**self.items[self.order[number % len(self.order)]], mosaic_metadata=partners)

    def mosaic(self, number: int) -> list[dict[str, Any]]:
        """Return the four items of a mosaic."""
        chosen = [number, *np.random.default_rng(number).integers(len(self.items), size=3).tolist()]
        return [self.items[n % len(self.items)] for n in chosen]


def against_stock(data: CocoDataModule, size: int, rounds: int) -> dict[str, float]:
    """Measure both in turn, round by round, so that a machine that slows down does so for both."""
    samples = Samples(data, size)
    calls = len(samples.order)
    ours, stock = partial(cpu_ms, samples.ours, calls, 1), partial(cpu_ms, samples.albumentations, calls // 4, 1)
    turns = take_turns({"ours": ours, "stock albumentations": stock}, rounds, warm_up=1)
    return {name: median(times) for name, times in turns.items()}


def stages(data: CocoDataModule, size: int, rounds: int) -> dict[str, float]:
    """Return the CPU milliseconds of each stage of a sample."""
    annotations = data.annotations["train"]
    samples = Samples(data, size)
    pipeline, calls = samples.dataset.pipeline, len(samples.order)
    mosaics = [samples.mosaic(n) for n in range(calls)]
    images, objects = ([[item[key] for item in items] for items in mosaics] for key in ("image", "bboxes"))
    shapes = [[image.shape[:2] for image in row] for row in images]
    layouts = [pipeline.mosaic_affine.draw_layout(shapes[n], np.random.default_rng(n)) for n in range(calls)]
    rendered = [render(images[n], layouts[n]) for n in range(calls)]
    shifts = 0.5 * np.array(data.augment.hsv)
    functions: dict[str, Callable[[int], object]] = {
        "decode": lambda n: read_image(annotations.image_path(n), annotations.size(n)),
        "mosaic, affine, flip": lambda n: render(images[n], layouts[n]),
        "boxes": lambda n: map_objects(objects[n], layouts[n]),
        "colors": lambda n: shift_hsv(rendered[n], shifts),
        "whole sample": samples.ours,
    }
    return {name: cpu_ms(function, calls, rounds) for name, function in functions.items()}


def loader_speed(arguments: dict[str, Any], workers: int, cache: str, num_images: int) -> float:
    """Return images per second of a loader that reads files, from its second batch on."""
    data = CocoDataModule(**arguments, num_workers=workers, cache=cache)
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    count, start = 0, time.perf_counter()
    while count < num_images:
        for batch in islice(batches, num_images):
            count += len(batch["targets"])
        batches = iter(loader)
    return count / (time.perf_counter() - start)


def print_times(times: dict[str, float], yard_ms: float) -> None:
    """Print a line for each time, in milliseconds, yards and images per second."""
    for name, time_ms in times.items():
        print(f"  {name:<22}{time_ms:>8.2f} ms{time_ms / yard_ms:>9.4f} yards{1e3 / time_ms:>8.0f} images/s")


def measure_loaders(arguments: dict[str, Any], worker_counts: list[int]) -> dict[int, dict[str, float]]:
    """Measure and print the images per second of whole loaders, by number of workers and ``data.cache``."""
    caches = ("none", "recent", "ram")
    print("whole loaders, images per second, by number of workers and data.cache:")
    print(f"  {'workers':>8}" + "".join(f"{cache:>10}" for cache in caches))
    speeds = {}
    for workers in worker_counts:
        speeds[workers] = {cache: loader_speed(arguments, workers, cache, 384) for cache in caches}
        print(f"  {workers:>8}" + "".join(f"{speed:>10.1f}" for speed in speeds[workers].values()), flush=True)
    return speeds


def main() -> None:
    """Measure, print and write the results."""
    parser = option_parser(__doc__, root="datasets/coco128", size=640, rounds=7)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="without a number: no loaders")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    arguments = {"root": args.root, "image_size": args.size}
    data = CocoDataModule(**arguments, num_workers=0)
    before = yard()
    samples, parts = against_stock(data, args.size, args.rounds), stages(data, args.size, args.rounds)
    after = yard()
    print(f"1 yard = {before:.0f} ms before, {after:.0f} ms after; OpenCV {cv2.__version__}, albumentations {A.__version__}")
    print(f"CPU time of a training sample at {args.size} px, decoded images in memory:")
    print_times(samples, (before + after) / 2)
    ratio = samples["stock albumentations"] / samples["ours"]
    targets = f"{TARGET_MS:g} ms, {TARGET_YARDS} yards, {TARGET_RATIO:g} x"
    print(f"  {ratio:.1f} x faster; targets: {targets}; reference {REFERENCE_YARDS} yards")
    print("by stage:")
    print_times(parts, (before + after) / 2)
    speeds = measure_loaders(arguments, args.workers) if args.workers else {}
    content = {"yard_before": before, "yard_after": after, "sample_ms": samples, "stages_ms": parts, "loaders": speeds}
    write("data", content)


if __name__ == "__main__":
    main()
