"""``python -m detector predict CKPT SOURCE...``: find objects in images and videos, from the command line."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from detector.batch import Size, as_size
from detector.network.head import BRANCHES
from detector.predict.outputs import PredictionFiles
from detector.predict.predictor import load_detector
from detector.predict.sources import Frame, Sources, find_sources
from detector.text import plural


def add_predict_command(commands: argparse._SubParsersAction) -> None:
    """Add ``predict``."""
    parser = commands.add_parser(
        "predict",
        help="find objects in images and videos",
        description="Find objects in images and videos; write annotated images and videos and predictions.json.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of ours, a .safetensors, or a .pt of the reference")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="images, videos, folders, or quoted patterns")
    parser.add_argument("--out", type=Path, default=Path("runs/predict"), help="folder to write into (%(default)s)")
    parser.add_argument("--score_threshold", type=float, default=0.25, help="scores must exceed it (%(default)s)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="look for these classes only")
    parser.add_argument("--max_detections", type=int, default=300, help="at most so many an image (%(default)s)")
    parser.add_argument("--branch", choices=BRANCHES, default=BRANCHES[0], help="without NMS, or with")
    parser.add_argument("--iou_threshold", type=float, default=0.7, help="of NMS, for one2many (%(default)s)")
    parser.add_argument("--image_size", type=int, nargs="+", help="one side, or height and width (those of training)")
    parser.add_argument("--batch_size", type=int, default=1, help="images at a time (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--csv", action="store_true", help="write predictions.csv, too")
    parser.add_argument("--crops", action="store_true", help="write every object as an image, too")
    parser.add_argument("--no_pictures", action="store_true", help="write no annotated images and videos")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty, replacing files")
    parser.set_defaults(run=predict)


def predict(options: argparse.Namespace) -> int:
    """Do what ``options`` say. Returns 1 if some of the input could not be read, else 0."""
    if options.out.exists() and (not options.out.is_dir() or (any(options.out.iterdir()) and not options.overwrite)):
        raise ValueError(f"{options.out} is there already; choose another --out, or give --overwrite")
    predictor = load_detector(options.checkpoint, options.branch, size_of(options.image_size)).deploy()
    names = ("score_threshold", "max_detections", "classes", "iou_threshold", "batch_size")
    settings = {name: getattr(options, name) for name in names}
    predictor([], **settings)  # mistakes in them show before the work starts
    sources = find_sources(options.sources)
    try:
        predictor.model.to(options.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from None
    counts: Counter[str] = Counter()
    files = PredictionFiles(options.out, predictor, not options.no_pictures, options.csv, options.crops)
    with files, tqdm(total=sources.num_frames, unit=" images", disable=None) as bar:
        for frames in in_batches(sources.frames(), options.batch_size):
            answers = predictor([frame.image for frame in frames], **settings)
            for frame, found in zip(frames, answers, strict=True):
                files.add(frame, found)
                counts.update(found.names)
                bar.update()
    each = ", ".join(f"{name}: {number}" for name, number in counts.most_common())
    seen = plural(len(files.images), "image or frame", "images and frames")
    print(f"{seen}, {plural(counts.total(), 'object')}{f' ({each})' * bool(each)}: {options.out}")
    return report(sources)


def in_batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield ``size`` frames at a time, the last time what is left."""
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield batch


def report(sources: Sources) -> int:
    """Say what was not looked at; return the exit status."""
    if sources.left_out:
        some = ", ".join(str(path) for path in sources.left_out[:3]) + (", ..." if len(sources.left_out) > 3 else "")
        many = plural(len(sources.left_out), "other file in the folders was", "other files in the folders were")
        print(f"{many} left out: {some}")
    if sources.unreadable:
        many = plural(len(sources.unreadable), "input could not be read and was", "inputs could not be read and were")
        print(f"{many} skipped:", file=sys.stderr)
        print(*(f"  {reason}" for reason in sources.unreadable), sep="\n", file=sys.stderr)
    return int(bool(sources.unreadable))


def size_of(values: list[int] | None) -> Size | None:
    """Return (height, width) for the values of ``--image_size``: one side, or height and width."""
    return None if values is None else as_size(values[0] if len(values) == 1 else values, "--image_size")
