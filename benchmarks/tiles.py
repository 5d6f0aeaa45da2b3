"""What tiles gain on small objects: ``python -m benchmarks.tiles``.

Draws images of 2,000 pixels with objects of about 10 pixels, cuts the training images into tiles, trains a small network on
them at one thread, and evaluates it on whole images, reduced to the input, and on tiles of the input's size.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

import evaluate
import train
from data.__main__ import main as data_command
from detector.evaluation import evaluate as coco_evaluation
from detector.evaluation import load_ground_truth, read_predictions
from detector.runs.folder import ground_truth_file, predictions_file

CLASSES = ("disc", "square", "cross")
IMAGE_SIDE, OBJECT_SIDES = 2000, (8, 13)  # pixels
TRAIN_TILE, TILE, OVERLAP = 160, 640, 0.2


def draw_image(rng: np.random.Generator, num_objects: int) -> tuple[np.ndarray, list[tuple[list[int], int]]]:
    """Return an image (H, W, 3) uint8 on a cloudy background, and its objects: x y width height, and label."""
    clouds = cv2.resize(
        rng.integers(60, 150, (50, 50, 3), np.uint8), (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_CUBIC
    )
    image = np.clip(clouds + rng.normal(0, 6, clouds.shape), 0, 255).astype(np.uint8)
    objects = []
    for _ in range(num_objects):
        side, label = int(rng.integers(*OBJECT_SIDES)), int(rng.integers(len(CLASSES)))
        x, y = rng.integers(0, IMAGE_SIDE - side, 2).tolist()
        color = tuple(rng.choice([0, 255], 3).tolist()) if rng.random() < 0.9 else (255, 255, 255)
        middle, half = (x + side // 2, y + side // 2), side // 2
        if label == 0:
            cv2.circle(image, middle, half, color, cv2.FILLED)
        elif label == 1:
            cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), color, cv2.FILLED)
        else:
            cv2.rectangle(image, (x, y + half - 1), (x + side - 1, y + half + 1), color, cv2.FILLED)
            cv2.rectangle(image, (x + half - 1, y), (x + half + 1, y + side - 1), color, cv2.FILLED)
        objects.append(([x, y, side, side], label))
    return image, objects


def write_set(root: Path, split: str, num_images: int, num_objects: int) -> None:
    """Draw the images of a split, and write them with their COCO file."""
    rng = np.random.default_rng([len(split), num_images])
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        image, objects = draw_image(rng, num_objects)
        cv2.imwrite(str(root / split / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "height": IMAGE_SIDE, "width": IMAGE_SIDE})
        for bbox, label in objects:
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": bbox}
            annotations.append(entry | {"area": bbox[2] * bbox[3], "iscrowd": 0})
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def main(args: list[str] | None = None) -> None:
    """Draw, cut, train and evaluate; print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiles"), help="a new folder (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of training on the tiles (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (%(default)s)")
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    out, root = options.out, options.out / "images"
    write_set(root, "train", num_images=3, num_objects=900)
    write_set(root, "val", num_images=4, num_objects=80)
    names = {
        f"{s}_{kind}": value
        for s in ("train", "val")
        for kind, value in (("annotations", f"annotations/{s}.json"), ("images", s))
    }
    data = [word for name, value in ({"root": str(root)} | names).items() for word in (f"--data.{name}", value)]
    tiles = ["--tile", str(TRAIN_TILE), "--overlap", "0", "--out", str(out / "cut")]
    if data_command(["tile", *data, *tiles]):
        raise SystemExit("the images could not be cut")
    common = ["--trainer.accelerator", "cpu", "--data.num_workers", "0"]
    recipe = ["--trainer.max_epochs", str(options.epochs), "--model.nominal_batch", "16", "--model.optimizer", "adamw"]
    recipe += ["--model.variant", "yolo26_n", "--model.lr", "0.002", "--model.warmup_epochs", "0.5", "--ema.tau", "50"]
    recipe += ["--data.augment.mosaic", "0", "--data.batch_size", "16", "--trainer.limit_val_batches", "0"]
    configs = ["--config", "configs/published.yaml", "--config", str(out / "cut/tiles.yaml")]
    train.main([*configs, *common, *recipe, "--run_dir", str(out / "run")])
    print("| on images of 2,000 px | AP | AP50 | AP_small | AP_small, with NMS |\n|---|---|---|---|---|")
    rows = []
    for name, extra in (
        ("whole, reduced to 640", []),
        ("tiles of 640, overlap 0.2", ["--tile", str(TILE), "--overlap", str(OVERLAP)]),
    ):
        folder = out / ("tiled" if extra else "whole")
        settings = ["--data.image_size", str(TILE), "--data.val_batch_size", "4", "--run_dir", str(folder)]
        evaluate.main([str(out / "run/last.ckpt"), *data, *common, *settings, *extra])
        rows.append(f"| {name} | {' | '.join(numbers(folder))} |")
    print(*rows, sep="\n")


def numbers(folder: Path) -> list[str]:
    """Return the columns of the table from the files of an evaluation."""
    truth = load_ground_truth(folder / ground_truth_file("val"))
    both = [
        coco_evaluation(truth, read_predictions(folder / predictions_file("val", branch), truth), sorted(truth.imgs)).metrics
        for branch in ("", "one2many")
    ]
    return [f"{both[0][name]:.3f}" for name in ("AP", "AP50", "AP_small")] + [f"{both[1]['AP_small']:.3f}"]


if __name__ == "__main__":
    main()
