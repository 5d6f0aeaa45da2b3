"""Can a detector learn a few images of a COCO-format set by heart? If not, something between file and loss is wrong.

``python -m benchmarks.by_heart ANNOTATIONS IMAGES`` trains on the first images that have objects, without augmentation,
evaluates on the same ones, and prints the table of both branches.
"""

import argparse
import json
import tempfile
from pathlib import Path

import lightning as L

from data import Augmentation, CocoDataModule
from detector import DetectorModule
from detector.callbacks.coco_evaluation import CocoEvaluation
from detector.callbacks.ema import RampedEMA
from detector.evaluation.coco_eval import coco_table

STILL = Augmentation(mosaic=0.0, scale=0.0, translate=0.0, fliplr=0.0, hsv=(0.0, 0.0, 0.0))


def first_images(annotations: Path, number: int, target: Path) -> None:
    """Write the part of ``annotations`` that concerns the first ``number`` images with objects to ``target``."""
    content = json.loads(annotations.read_text())
    with_objects = {annotation["image_id"] for annotation in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in with_objects][:number]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    used = {annotation["category_id"] for annotation in content["annotations"]}
    content["categories"] = [category for category in content["categories"] if category["id"] in used]
    target.write_text(json.dumps(content))


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--variant", default="dyn_n")
    parser.add_argument("--num_images", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=200)
    args = parser.parse_args()
    L.seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        subset = Path(folder) / "subset.json"
        first_images(args.annotations, args.num_images, subset)
        files = {
            "train_annotations": subset,
            "val_annotations": subset,
            "train_images": args.images,
            "val_images": args.images,
        }
        data = CocoDataModule(
            root="/",
            **{name: str(path.resolve()) for name, path in files.items()},
            image_size=args.image_size,
            batch_size=args.num_images,
            num_workers=0,
            augment=STILL,
        )
        module = DetectorModule(args.variant, data.class_names, data.category_ids, nominal_batch=args.num_images)
        evaluation = CocoEvaluation(predictions=False)
        trainer = L.Trainer(
            max_epochs=args.epochs,
            accelerator="cpu",
            callbacks=[RampedEMA(tau=100), evaluation],
            check_val_every_n_epoch=args.epochs,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data)
    print(f"{args.variant}, {args.num_images} images of {args.annotations}, {args.image_size} px, {args.epochs} epochs")
    print(coco_table(evaluation.results))


if __name__ == "__main__":
    main()
