"""``python -m detector predict CKPT SOURCE...``: detect objects in images and videos."""

import argparse
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from detector.batch import Size
from detector.commands.options import (
    add_checkpoint,
    add_image_size,
    add_option,
    add_tiles,
    parse_device,
    parse_image_size,
    parse_score_threshold,
    parse_tile,
)
from detector.commands.stream import RECONNECTS, check_stream_options, run_stream
from detector.network.head import BRANCHES
from detector.predict import Predictor, load_detector
from detector.predict.outputs import PredictionFiles
from detector.predict.predictor import ScoreThreshold
from detector.predict.sources import Sources, find_sources
from detector.predict.stream_sources import find_source
from detector.text import plural

OUT = Path("runs/predict")
WEIGHTS_SUFFIXES = (".ckpt", ".safetensors", ".pt")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add description, usage and options of the command ``predict``."""
    parser.description = "Detect objects in images and videos. Write annotated images and videos, and predictions.json."
    parser.usage = "%(prog)s CKPT (SOURCE ... | --stream STREAM) [--OPTION VALUE ...]"
    add_checkpoint(parser)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="images, videos, folders, or quoted patterns")
    stream_help = "instead of SOURCE: a camera (0), an address (rtsp://...), or - for images from a pipe; gives JSON lines"
    parser.add_argument("--stream", metavar="STREAM", help=stream_help)
    parser.add_argument(
        "--every_frame", action="store_true", help="with --stream: drop no frames, and lag if they come faster"
    )
    reconnects_help = f"with --stream: attempts to connect again, in a row ({RECONNECTS})"
    parser.add_argument("--reconnects", type=int, help=reconnects_help)
    out_help = f"folder to write into ({OUT}); with --stream a file (standard output)"
    parser.add_argument("--out", type=Path, help=out_help)
    threshold_help = "scores must exceed it (%(default)s); best: the threshold of the best F1 in the last validation"
    parser.add_argument("--score_threshold", type=parse_score_threshold, default=0.25, help=threshold_help)
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="detect only these classes")
    parser.add_argument(
        "--max_detections", type=int, default=300, help="at most this number per image or tile (%(default)s)"
    )
    parser.add_argument("--branch", choices=BRANCHES, default="one2one", help="one2one without NMS, one2many with NMS")
    parser.add_argument("--iou_threshold", type=float, help="of NMS, only with --branch one2many (0.7)")
    flip_help = "detect in the mirrored image, too, and merge both: twice the time"
    parser.add_argument("--flip_test", action="store_true", help=flip_help)
    add_tiles(parser)
    add_image_size(parser)
    parser.add_argument("--batch_size", type=int, default=1, help="images or tiles per batch (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--csv", action="store_true", help="also write predictions.csv")
    parser.add_argument("--crops", action="store_true", help="also write every object as an image")
    add_option(parser, "--no_images", "--no_pictures", action="store_true", help="write no annotated images and videos")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty; replace files")
    parser.set_defaults(run=run_predict)


def run_predict(options: argparse.Namespace) -> int:
    """Detect objects in the sources and write the files. Returns 1 if part of the input could not be read, else 0."""
    weights = [source for source in options.sources if Path(source).suffix in WEIGHTS_SUFFIXES]
    if weights and options.checkpoint.suffix not in WEIGHTS_SUFFIXES:
        raise ValueError(f"CKPT and SOURCE are swapped: give {weights[0]} first, then {options.checkpoint}")
    if options.iou_threshold is not None and options.branch == "one2one":
        raise ValueError(
            "--iou_threshold is of NMS, which the branch one2one does not use; add --branch one2many, or leave it out"
        )
    if options.stream is not None:
        check_stream_options(options)
        find_source(options.stream)  # a wrong name is a ValueError, before the work starts
    else:
        check_files_options(options)
    device = parse_device(options.device)
    predictor = load_detector(options.checkpoint, options.branch, parse_image_size(options.image_size)).deploy()
    names = ("score_threshold", "max_detections", "classes", "batch_size", "flip_test")
    settings = {name: getattr(options, name) for name in names}
    if options.iou_threshold is not None:
        settings["iou_threshold"] = options.iou_threshold
    settings |= {"tile": parse_tile(options.tile, options.overlap), "overlap": options.overlap}
    settings["score_threshold"] = threshold = predictor.score_threshold(options.score_threshold)
    predictor([], **settings)  # wrong settings are a ValueError, before the work starts
    sources = None if options.stream is not None else find_sources(options.sources, options.out)
    try:
        predictor.model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from None
    if sources is None:
        return run_stream(options, predictor, settings)
    outputs = not options.no_images, options.csv, options.crops
    side = settings["tile"] and min(settings["tile"])
    with PredictionFiles(options.out, predictor, *outputs, score_threshold=threshold, scale_side=side) as files:
        counts = predict_sources(predictor, sources, files, settings)
    summary = f"{plural(len(files.images), 'image or frame', 'images and frames')}, {plural(counts.total(), 'object')}"
    if counts:
        summary += f" ({', '.join(f'{name}: {number}' for name, number in counts.most_common())})"
    print(f"{summary}: {options.out}")
    print(describe_threshold(predictor, options.score_threshold))
    if settings["tile"] and files.images and all(fits_into_one_tile(image, settings["tile"]) for image in files.images):
        sides = " ".join(map(str, options.tile))
        print(f"--tile {sides} made no difference: every image fits into one tile; give a smaller one")
    print(*files.notes, sep="\n", end="\n" if files.notes else "")
    print_skipped(sources)
    return 1 if sources.unreadable else 0


def describe_threshold(predictor: Predictor, score_threshold: ScoreThreshold) -> str:
    """Return a sentence with the score threshold in use, and that of the best F1, if it is known."""
    number, best = predictor.score_threshold(score_threshold), predictor.best_f1_threshold
    if score_threshold == "best":
        return f"score threshold {number}: that of the best F1 in the last validation"
    if best is None:
        return f"score threshold {number}; that of the best F1 is {predictor.info.describe_best_f1(predictor.branch)}"
    return f"score threshold {number}; the best F1 in the last validation was at {best} (--score_threshold best)"


def check_files_options(options: argparse.Namespace) -> None:
    """Fill in ``--out``. Raises ValueError without sources, for options of streams, and for a folder with files."""
    if not options.sources:
        raise ValueError("no SOURCE is given: images, videos, folders or quoted patterns; or a camera, as --stream 0")
    if options.every_frame or options.reconnects is not None:
        raise ValueError(f"--{'every_frame' if options.every_frame else 'reconnects'} is for --stream; leave it out")
    options.out = options.out or OUT
    check_output_folder(options.out, options.overwrite)


def fits_into_one_tile(image: dict[str, Any], tile: Size) -> bool:
    """Return True if an ``image``, an entry of predictions.json, is not larger than a tile (height, width)."""
    return image["height"] <= tile[0] and image["width"] <= tile[1]


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Raise ValueError if ``folder`` is a file, or if it has files and ``overwrite`` is False."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; give a folder")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} already exists; choose another --out, or give --overwrite")


def predict_sources(
    predictor: Predictor, sources: Sources, files: PredictionFiles, settings: dict[str, Any]
) -> Counter[str]:
    """Write the detections in all images and frames; return the number of objects of each class, by name."""
    counts: Counter[str] = Counter()
    frames = sources.frames(predictor.sixteen_bit_range)
    with tqdm(total=sources.num_frames, unit=" images", disable=None) as bar:
        while batch := list(islice(frames, settings["batch_size"])):
            results = predictor([frame.image for frame in batch], **settings)
            for frame, detections in zip(batch, results, strict=True):
                files.add(frame, detections)
                counts.update(detections.names)
                bar.update()
    return counts


def print_skipped(sources: Sources) -> None:
    """Print the files that were left out, and, to stderr, the inputs that could not be read."""
    for paths, one, many in (
        (sources.left_out, "other file in the folders was left out", "other files in the folders were left out"),
        (sources.hidden, "hidden file in the folders was left out", "hidden files in the folders were left out"),
        (sources.outputs, "image or video was left out, which predict has written",
         "images and videos were left out, which predict has written"),
        (sources.first_only, "image has several pages or frames, of which the first was taken",
         "images have several pages or frames, of which the first was taken"),
    ):  # fmt: skip
        if paths:
            names = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
            print(f"{plural(len(paths), one, many)}: {names}")
    if unreadable := sources.unreadable:
        count = plural(len(unreadable), "input could not be read and was", "inputs could not be read and were")
        print(f"{count} skipped:", *(f"  {reason}" for reason in unreadable), sep="\n", file=sys.stderr)
