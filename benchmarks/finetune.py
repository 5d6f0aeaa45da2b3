"""Do trained weights help on a small set? Train on blood cells from scratch, and from weights trained on drawn shapes.

``python -m benchmarks.finetune --root datasets/bccd --jobs 2`` first trains on the shapes set with the settings of
``make demo``. Then it trains every seed at 160 px with ``configs/finetune.yaml``: from scratch, from those weights, and from
those weights with a frozen backbone. It takes about 20 minutes on 2 cores, and an interrupted benchmark continues.
``--weights`` starts from another file. All APs are of the averaged weights after the last epoch.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmarks.runs import ap_cell, run_coco_eval, train, write
from detector.network.head import BRANCHES
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT

EPOCHS, SOURCE_EPOCHS = 30, 8  # of configs/finetune.yaml and configs/demo.yaml
ARMS = {"scratch": [], "fine-tuned": [], "fine-tuned, backbone frozen": ["--model.freeze", '["backbone"]']}


def pretrained(variant: str, runs: Path) -> Path:
    """Return weights of ``variant`` trained on the shapes set; train them if the file is missing."""
    run = runs / f"finetune_source_{variant}"
    configs = ["--config", "configs/data/shapes.yaml", "--config", "configs/demo.yaml"]
    train([*configs, "--model.variant", variant, "--data.num_workers", "0"], run, SOURCE_EPOCHS)
    return run / BEST_CHECKPOINT


def measure(variant: str, root: Path, runs: Path, weights: Path, arm: str, seed: int) -> dict[str, float]:
    """Return the APs of a run; train it if it is missing."""
    configs = ["--config", "configs/finetune.yaml", "--config", "configs/data/bccd.yaml"]
    common = [*configs, "--data.root", str(root), "--data.image_size", "160", "--model.variant", variant]
    start = [] if arm == "scratch" else ["--model.weights", str(weights)]
    seeded = ["--seed_everything", str(seed), "--data.num_workers", "0", "--trainer.check_val_every_n_epoch", str(EPOCHS)]
    run = runs / f"finetune_{variant}_{arm.replace(', ', '_').replace(' ', '-')}_s{seed}"
    train([*common, *start, *ARMS[arm], *seeded], run, EPOCHS)
    return run_coco_eval(common, run / LAST_CHECKPOINT, root / "annotations" / "instances_val.json")


def main() -> None:
    """Train the missing runs, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets/bccd"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--variant", default="yolo26_n")
    parser.add_argument("--weights", type=Path, help="start from this file instead of training on the shapes set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, each with its share of the cores")
    args = parser.parse_args()
    weights = args.weights or pretrained(args.variant, args.runs)
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // args.jobs, 1))
    pairs = list(product(args.seeds, ARMS))
    results: dict[str, dict[str, list[float]]] = {name: {} for name in ARMS}
    with ThreadPoolExecutor(args.jobs) as pool:
        measured = pool.map(lambda pair: measure(args.variant, args.root, args.runs, weights, pair[1], pair[0]), pairs)
        for (_, arm), numbers in zip(pairs, measured, strict=True):
            for metric, value in numbers.items():
                results[arm].setdefault(metric, []).append(value)
    print(f"{args.variant}, {EPOCHS} epochs, weights from {weights}; AP on the validation set, seeds {args.seeds}")
    print(f"{'':<30}{'NMS-free':<34}with NMS")
    for name, numbers in results.items():
        print(f"{name:<30}" + "".join(ap_cell(numbers[f"{branch} AP"]) for branch in BRANCHES))
    write(f"finetune_{args.variant}", {"weights": str(weights), "seeds": args.seeds, "epochs": EPOCHS, "results": results})


if __name__ == "__main__":
    main()
