"""The first training command of the README against the reference's own settings, on any data set, at equal epochs.

``python -m benchmarks.recipe.first_command --config mine.yaml --seeds 1 2 3 --jobs 2`` trains, for every seed:

    first command            configs/backbone.yaml: an ImageNet backbone, and settings by the number of images
    reference settings       the same start, with what the public reference chooses by itself on small sets
    reference from scratch   these settings with the network and the start that the reference has without its own weights

Then it prints the AP of each, of the averaged weights after the last epoch. ``--config`` describes the data (docs/data.md),
up to 5,000 images; it should be a set that the study of docs/recipe-study.md has not seen. ``--epochs 0`` are those that
the first command chooses. ``--backbone`` and ``--weights`` replace the backbone of configs/backbone.yaml where there is no
network.
"""

from argparse import Namespace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import option_parser, print_table
from benchmarks.recipe.settings import BACKBONE, BY_HAND, REFERENCE, SCRATCH, reference_rate
from benchmarks.runs import as_arguments, measure_all, published_arguments, train, written_ap
from data import CocoDataModule
from detector.files import read_yaml
from detector.network.head import BRANCHES
from detector.text import plural
from detector.training.recipe import recipe_for

FIRST, SAME_START, FROM_SCRATCH = ARMS = ("first command", "reference settings", "reference from scratch")


def arm_arguments(arm: str, args: Namespace, classes: int, epochs: int, seed: int) -> list[str]:
    """Return the arguments of train.py for an arm; all have the same data, size, epochs and seed."""
    settings: dict[str, Any] = {"model.variant": "yolo26_n", "trainer.max_epochs": epochs, "seed_everything": seed}
    settings |= {"data.image_size": args.image_size, "data.num_workers": 0, "data.cache": "ram"}
    settings |= {"trainer.check_val_every_n_epoch": epochs, "trainer.enable_progress_bar": "false"}
    if arm != FROM_SCRATCH:
        settings |= {"model.backbone": args.backbone} if args.backbone else {}
        settings |= {"model.backbone_weights": args.weights} if args.weights else {}
    if arm == FIRST:
        return ["--config=configs/backbone.yaml", f"--config={args.config}", *as_arguments(settings)]
    by_hand = BY_HAND[SCRATCH if arm == FROM_SCRATCH else BACKBONE] | REFERENCE | {"model.lr": reference_rate(classes)}
    configs = (args.config,) if arm == FROM_SCRATCH else ("configs/backbone.yaml", args.config)
    return published_arguments(by_hand | settings, configs)


def main() -> None:
    """Train the missing runs, and print the table."""
    options: dict[str, Any] = {"config": "", "backbone": "", "weights": "", "image_size": 320, "epochs": 0}
    parser = option_parser(__doc__, **options, seeds=[1], jobs=1, runs=Path("runs/first_command"))
    args = parser.parse_args()
    if not Path(args.config).is_file():
        parser.error(f"--config {args.config or 'is missing'}: give the file of a data set (docs/data.md)")
    data = CocoDataModule(**read_yaml(Path(args.config), "give the file of a data set")["data"])
    epochs = args.epochs or recipe_for(data.num_train_images, start=BACKBONE).epochs

    def measure(arm: str, seed: int) -> dict[str, float]:
        start = "" if arm == FROM_SCRATCH else f"_{Path(args.weights).stem or 'imagenet'}"
        name = f"{Path(args.config).stem}_{args.image_size}px_{arm}{start}_e{epochs}_s{seed}"
        run = args.runs / name.replace(" ", "_")
        arguments = arm_arguments(arm, args, len(data.class_names), epochs, seed)
        train(arguments, run, epochs, args.runs / f"{run.name}.log")
        return written_ap(run)

    numbers = measure_all(measure, ARMS, args.seeds, args.jobs)
    classes = plural(len(data.class_names), "class", "classes")
    print(f"{data.num_train_images} training images, {classes}, {args.image_size} px, {plural(epochs, 'epoch')}")
    rows = []
    for arm, seeds in numbers.items():
        aps = [[one[f"{branch} AP"] for one in seeds] for branch in BRANCHES]
        rows.append([arm, *(f"{mean(values):.4f}" for values in aps), ", ".join(f"{value:.4f}" for value in aps[0])])
    print_table(("AP", "NMS-free", "with NMS", "NMS-free by seed"), *rows)


if __name__ == "__main__":
    main()
