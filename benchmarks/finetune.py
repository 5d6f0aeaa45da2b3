"""What do trained weights bring on a small set? Blood cells from scratch against weights trained on drawn shapes.

``python -m benchmarks.finetune --root datasets/bccd`` trains on the shapes set first (``make demo``'s settings), then, for
every seed, with ``configs/finetune.yaml`` from scratch, from those weights, and from those weights with a frozen backbone.
About 6 minutes a run on 2 cores; it goes on where it was stopped. ``--weights`` starts from another file.
"""

import argparse
from pathlib import Path
from statistics import mean

from benchmarks.runs import judge, train, write
from detector.evaluation import BRANCHES

EPOCHS, SOURCE_EPOCHS = 30, 8  # of configs/finetune.yaml and configs/demo.yaml
ARMS = {"scratch": [], "fine-tuned": [], "fine-tuned, backbone frozen": ["--model.freeze", '["backbone"]']}


def pretrained(variant: str, runs: Path) -> Path:
    """Return weights of ``variant`` trained on the shapes set, after training them if they are not there."""
    run = runs / f"finetune_source_{variant}"
    configs = ["--config", "configs/data/shapes.yaml", "--config", "configs/demo.yaml"]
    train([*configs, "--model.variant", variant, "--data.num_workers", "0"], run, SOURCE_EPOCHS)
    return run / "best.ckpt"


def arguments(variant: str, root: Path) -> list[str]:
    """Return the arguments of train.py that all arms have."""
    configs = ["--config", "configs/finetune.yaml", "--config", "configs/data/bccd.yaml"]
    return [*configs, "--data.root", str(root), "--data.image_size", "320", "--model.variant", variant]


def main() -> None:
    """Train what is missing, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets/bccd"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--variant", default="yolo26_n")
    parser.add_argument("--weights", type=Path, help="start from this file instead of training on the shapes set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    weights = args.weights or pretrained(args.variant, args.runs)
    common, truth = arguments(args.variant, args.root), args.root / "annotations" / "instances_val.json"
    results: dict[str, dict[str, list[float]]] = {name: {} for name in ARMS}
    for seed in args.seeds:
        for name, extra in ARMS.items():
            run = args.runs / f"finetune_{args.variant}_{name.replace(', ', '_').replace(' ', '-')}_s{seed}"
            start = [] if name == "scratch" else ["--model.weights", str(weights)]
            seeded = ["--seed_everything", str(seed), "--evaluation.branch", "one2one", "--data.num_workers", "0"]
            train([*common, *start, *extra, *seeded], run, EPOCHS)
            for metric, value in judge(common, run / "best.ckpt", truth).items():
                results[name].setdefault(metric, []).append(value)
    print(f"{args.variant}, {EPOCHS} epochs, weights from {weights}; AP on the validation set, seeds {args.seeds}")
    print(f"{'':<30}{'NMS-free':<34}with NMS")
    for name, numbers in results.items():
        print(f"{name:<30}" + "".join(_cell(numbers[f"{branch} AP"]) for branch in BRANCHES))
    write(f"finetune_{args.variant}", {"weights": str(weights), "seeds": args.seeds, "epochs": EPOCHS, "results": results})


def _cell(values: list[float]) -> str:
    return f"{', '.join(f'{v:.3f}' for v in values) + f' (mean {mean(values):.3f})':<34}"


if __name__ == "__main__":
    main()
