"""Do trained weights help on a small set? Train on blood cells from scratch, and from weights trained on drawn shapes.

``python -m benchmarks.finetune --root datasets/bccd --jobs 2`` first trains on the shapes set with
``configs/shapes_dyn_n.yaml``. Then it trains every seed at 160 px with ``configs/finetune.yaml``: from scratch, from those
weights, and from those weights with a frozen backbone. It takes about 20 minutes on 2 cores, and an interrupted benchmark
continues.
``--weights`` starts from another file. ``--jobs`` trainings at a time share the cores. All APs are of the averaged weights
after the last epoch.
"""

from pathlib import Path

from benchmarks.common import option_parser, write
from benchmarks.runs import as_arguments, by_metric, measure_all, print_ap, published_arguments, run_coco_eval, train
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT

EPOCHS, SOURCE_EPOCHS = 30, 8  # of configs/finetune.yaml and configs/shapes_dyn_n.yaml
ARMS = {"scratch": [], "fine-tuned": [], "fine-tuned, backbone frozen": ["--model.freeze", '["backbone"]']}


def pretrained(variant: str, runs: Path) -> Path:
    """Return weights of ``variant`` trained on the shapes set; train them if the file is missing."""
    run = runs / f"finetune_source_{variant}"
    settings = {"model.variant": variant, "data.num_workers": 0}
    train(published_arguments(settings, ("configs/data/shapes.yaml", "configs/shapes_dyn_n.yaml")), run, SOURCE_EPOCHS)
    return run / BEST_CHECKPOINT


def measure(arm: str, seed: int, variant: str, root: Path, runs: Path, weights: Path) -> dict[str, float]:
    """Return the APs of a run; train it if it is missing."""
    settings = {"data.root": root, "data.image_size": 160, "model.variant": variant}
    common = published_arguments(settings, ("configs/finetune.yaml", "configs/data/bccd.yaml"))
    start = [] if arm == "scratch" else [f"--model.weights={weights}"]
    seeded = as_arguments({"seed_everything": seed, "data.num_workers": 0, "trainer.check_val_every_n_epoch": EPOCHS})
    run = runs / f"finetune_{variant}_{arm.replace(', ', '_').replace(' ', '-')}_s{seed}"
    train([*common, *start, *ARMS[arm], *seeded], run, EPOCHS)
    return run_coco_eval(common, run / LAST_CHECKPOINT, root)


def main() -> None:
    """Train the missing runs, print, write."""
    defaults = {"root": Path("datasets/bccd"), "runs": Path("runs"), "variant": "yolo26_n", "seeds": [0, 1, 2], "jobs": 1}
    parser = option_parser(__doc__, **defaults)
    parser.add_argument("--weights", type=Path, help="start from this file instead of training on the shapes set")
    args = parser.parse_args()
    weights = args.weights or pretrained(args.variant, args.runs)
    settings = (args.variant, args.root, args.runs, weights)
    measured = measure_all(lambda *run: measure(*run, *settings), ARMS, args.seeds, args.jobs)
    results = {arm: by_metric(numbers) for arm, numbers in measured.items()}
    print(f"{args.variant}, {EPOCHS} epochs, weights from {weights}; AP on the validation set, seeds {args.seeds}")
    print_ap("", results)
    write(f"finetune_{args.variant}", {"weights": str(weights), "seeds": args.seeds, "epochs": EPOCHS, "results": results})


if __name__ == "__main__":
    main()
