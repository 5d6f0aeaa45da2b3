"""Draw the two figures of README.md: detections on unseen images, and routing by image.

``python -m benchmarks.figures_readme detections RUN=IMAGES ...`` draws images of each run with the detections of its last
validation, from ``predictions.json``; IMAGES is their folder. It takes images on which every object is detected once, those
with most objects first: the figure shows what detections look like, not how good they are on average.

``python -m benchmarks.figures_readme routing CHECKPOINT IMAGES`` draws the routing weights of a network with dynamic layers
for images of several sources. The set is that of ``benchmarks.dynamic_data``: names of files begin with their source.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from torchvision.ops import box_iou

from benchmarks.common import option_parser
from benchmarks.figure_files import FIGURES, write_figure
from detector import load_detector
from detector.batch import xywh_to_xyxy
from detector.dynamic.routing import record_routing
from detector.files import atomic_write, read_json
from detector.imaging.draw import draw_boxes, fit_longer_side, sheet
from detector.imaging.plot_files import Plot, finish
from detector.imaging.plot_style import plot_style
from detector.imaging.read import read_upright
from detector.runs.folder import ground_truth_file, predictions_file

SIDE, JPEG_QUALITY = 232, 85  # of an image of the figure, in px
SOURCES = {"bccd": "blood cells", "cards": "cards", "shapes": "drawn shapes", "coco128": "photographs"}
COLUMN, ROW = 4, 5  # an image, and a routing weight, in px of the figure


def is_faultless(objects: list[dict[str, Any]], detections: list[dict[str, Any]]) -> bool:
    """Return True if every object has one detection, of its class and with an IoU above 0.7, and none is left over."""
    if not objects or len(objects) != len(detections):
        return False
    boxes, found = (torch.tensor(xywh_to_xyxy(np.array([e["bbox"] for e in part]))) for part in (objects, detections))
    labels, named = (torch.tensor([e["category_id"] for e in part]) for part in (objects, detections))
    pairs = (box_iou(boxes, found) > 0.7) & (labels[:, None] == named)
    return bool((pairs.sum(dim=0) == 1).all() and (pairs.sum(dim=1) == 1).all())


def by_image(entries: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Return COCO entries by the id of their image."""
    result: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        result.setdefault(entry["image_id"], []).append(entry)
    return result


def faultless_images(run: Path, images: Path, number: int, score_threshold: float) -> list[np.ndarray]:
    """Return up to ``number`` images of a run, with their detections drawn; all have SIDE x SIDE pixels."""
    truth = read_json(run / ground_truth_file("val"), dict, "the ground truth of a run")
    names = [category["name"] for category in truth["categories"]]
    labels = {category["id"]: label for label, category in enumerate(truth["categories"])}
    predictions = read_json(run / predictions_file("val"), list, "the detections of a run")
    found = by_image([entry for entry in predictions if entry["score"] > score_threshold])
    objects = by_image(truth["annotations"])
    chosen = [e for e in truth["images"] if is_faultless(objects.get(e["id"], []), found.get(e["id"], []))]
    chosen.sort(key=lambda entry: -len(objects[entry["id"]]))
    tiles = []
    for entry in chosen[:number]:
        detections = found[entry["id"]]
        image, boxes = fit_longer_side(
            read_upright(images / entry["file_name"]), xywh_to_xyxy(np.array([e["bbox"] for e in detections])), SIDE
        )
        shown = [labels[e["category_id"]] for e in detections]
        tile = draw_boxes(image, boxes, np.array(shown), names, np.array([e["score"] for e in detections]))
        canvas = np.full((SIDE, SIDE, 3), 245, dtype=np.uint8)
        top, left = (SIDE - tile.shape[0]) // 2, (SIDE - tile.shape[1]) // 2
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        tiles.append(canvas)
    print(f"{run}: {len(chosen)} of {len(truth['images'])} images are without a fault above {score_threshold}")
    return tiles


def routing_of(checkpoint: str, paths: Sequence[Path]) -> np.ndarray:
    """Return the routing weights (N, W) of N images: those of all dynamic layers in a row."""
    predictor = load_detector(checkpoint)
    rows = []
    for path in paths:
        batch, _ = predictor.prepare([read_upright(path)])
        with torch.inference_mode(), record_routing(predictor.model) as records:
            predictor.model(batch)
        rows.append(torch.cat([weights[0].flatten() for runs in records.values() for weights in runs]))
    return torch.stack(rows).numpy()


@plot_style()
def routing_figure(weights: np.ndarray, sources: Sequence[str]) -> Plot:
    """Return the figure: a column for each image, a row for each routing weight; ``sources`` has N names."""
    num_images, num_weights = weights.shape
    width, height = COLUMN * num_images, ROW * num_weights
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    centered = (weights - weights.mean(axis=0)).T
    limit = float(np.quantile(np.abs(centered), 0.98))
    axes.imshow(centered, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    names = list(dict.fromkeys(sources))
    ends = np.cumsum([sources.count(name) for name in names])
    for end in ends[:-1]:
        axes.axvline(end - 0.5, color="white", linewidth=3)
    axes.set_xticks([end - sources.count(name) / 2 - 0.5 for end, name in zip(ends, names)], names)
    axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.set_yticks([])
    axes.set_ylabel("routing weights, layer by layer")
    axes.set_xlabel("one column for each image (red: above its mean over all images, blue: below)")
    axes.spines[:].set_visible(False)
    words = [f"{sources.count(name)} images of {name}" for name in names]
    return finish("routing_by_image", "Routing weights of images of several sources", words, axes)


def main() -> None:
    """Draw one of the figures."""
    parser = option_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=FIGURES, help="of the figures (%(default)s)")
    commands = parser.add_subparsers(dest="figure", required=True)
    detections = commands.add_parser("detections", help="images with detections")
    detections.add_argument("runs", nargs="+", metavar="RUN=IMAGES", help="folder of a run, and that of its images")
    detections.add_argument("--number", type=int, default=4, help="images of each run (%(default)s)")
    detections.add_argument("--score_threshold", type=float, default=0.25, help="least score of a detection (%(default)s)")
    routing = commands.add_parser("routing", help="routing weights by image")
    routing.add_argument("checkpoint", help="of a network with dynamic layers")
    routing.add_argument("images", type=Path, help="folder of the images")
    routing.add_argument("--number", type=int, default=30, help="images of each source (%(default)s)")
    args = parser.parse_args()
    draw_detections(args) if args.figure == "detections" else draw_routing(args)


def draw_detections(args: argparse.Namespace) -> None:
    """Write detections.jpg, with a row for each run."""
    pairs = [entry.partition("=") for entry in args.runs]
    rows = [faultless_images(Path(r), Path(images), args.number, args.score_threshold) for r, _, images in pairs]
    _, jpeg = cv2.imencode(".jpg", sheet(rows, margin=6)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with atomic_write(args.folder / "detections.jpg") as path:
        path.write_bytes(jpeg.tobytes())
    print(f"written to {args.folder / 'detections.jpg'}")


def draw_routing(args: argparse.Namespace) -> None:
    """Write routing_by_image.svg."""
    chosen = {title: sorted(args.images.glob(f"{name}_*"))[: args.number] for name, title in SOURCES.items()}
    paths = [path for part in chosen.values() for path in part]
    sources = [title for title, part in chosen.items() for _ in part]
    write_figure(routing_figure(routing_of(args.checkpoint, paths), sources), args.folder)


if __name__ == "__main__":
    main()
