"""Can a detector learn a few images of a COCO-format set by heart? If not, there is a fault between file and loss.

``python -m benchmarks.by_heart ANNOTATIONS IMAGES`` trains on the first images that have objects, without augmentation,
evaluates on the same images, and prints the table of both branches.
"""

import argparse
import json
import tempfile
from pathlib import Path

import lightning as L

from benchmarks.common import option_parser
from data import Augmentation, CocoDataModule
from detector import DetectorModule
from detector.callbacks import CocoEvaluation, RampedEMA
from detector.evaluation import coco_table

NO_AUGMENTATION = Augmentation(mosaic=0.0, scale=0.0, translate=0.0, fliplr=0.0, hsv=(0.0, 0.0, 0.0))


def first_images(annotations: Path, number: int, target: Path) -> None:
    """Write the annotations of the first ``number`` images with objects to ``target``."""
    content = json.loads(annotations.read_text())
    with_objects = {annotation["image_id"] for annotation in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in with_objects][:number]
    image_ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in image_ids]
    category_ids = {annotation["category_id"] for annotation in content["annotations"]}
    content["categories"] = [category for category in content["categories"] if category["id"] in category_ids]
    target.write_text(json.dumps(content))


def train(args: argparse.Namespace, folder: Path) -> CocoEvaluation:
    """Train and validate on the same images; return the callback with the results."""
    subset = folder / "subset.json"
    first_images(args.annotations, args.num_images, subset)
    L.seed_everything(0)
    folders = {"train_images": str(args.images.resolve()), "val_images": str(args.images.resolve())}
    sizes = {"image_size": args.image_size, "batch_size": args.num_images, "num_workers": 0}
    files = {"train_annotations": subset.name, "val_annotations": subset.name}
    data = CocoDataModule(str(folder), **files, **folders, **sizes, augment=NO_AUGMENTATION)
    module = DetectorModule(args.variant, data.class_names, data.category_ids, nominal_batch=args.num_images)
    evaluation = CocoEvaluation(predictions=False)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    duration = {"max_epochs": args.epochs, "check_val_every_n_epoch": args.epochs}
    callbacks = [RampedEMA(tau=100), evaluation]
    trainer = L.Trainer(accelerator="cpu", callbacks=callbacks, default_root_dir=folder, **duration, **quiet)
    trainer.fit(module, datamodule=data)
    return evaluation


def main() -> None:
    """Train, evaluate, print."""
    parser = option_parser(__doc__, variant="dyn_n", num_images=8, image_size=320, epochs=200)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = train(args, Path(folder))
    print(f"{args.variant}, {args.num_images} images of {args.annotations}, {args.image_size} px, {args.epochs} epochs")
    print(coco_table(evaluation.results))


if __name__ == "__main__":
    main()
