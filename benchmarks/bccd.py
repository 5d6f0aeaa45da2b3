"""Train from scratch on the blood cells, several seeds per variant, and compare with the public reference.

``python -m benchmarks.bccd --root datasets/bccd`` trains the runs that are missing under ``--runs``, about 12 minutes each
on 2 cores. It evaluates both branches of each run's ``best.ckpt``, prints a table and writes
``benchmarks/results/bccd.json``.
"""

import argparse
from pathlib import Path

from benchmarks.runs import ap_cell, run_coco_eval, train, write
from detector.network.head import BRANCHES
from detector.runs.folder import BEST_CHECKPOINT

CONFIGS = ["configs/data/bccd.yaml", "configs/bccd_scratch.yaml"]
# AP of the public reference (release 8.4.190) with these settings, three seeds
REFERENCE = {"one2one": [0.501, 0.502, 0.522], "one2many": [0.522, 0.548, 0.549]}


def arguments(variant: str, root: Path) -> list[str]:
    """Return the arguments of train.py for ``variant``."""
    configs = [part for config in (f"configs/{variant}.yaml", *CONFIGS) for part in ("--config", config)]
    return [*configs, "--data.root", str(root)]


def main() -> None:
    """Train, evaluate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("datasets/bccd"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--variants", nargs="+", default=["yolo26_n", "dyn_n"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    for variant in args.variants:
        for seed in args.seeds:
            run, common = args.runs / f"bccd_{variant}_s{seed}", arguments(variant, args.root)
            seeded = ["--seed_everything", str(seed), "--evaluation.branch", "one2one", "--data.num_workers", "0"]
            train([*common, *seeded], run, epochs=60)
            truth = args.root / "annotations" / "instances_val.json"
            for name, value in run_coco_eval(common, run / BEST_CHECKPOINT, truth).items():
                results.setdefault(variant, {}).setdefault(name, []).append(value)
    print(f"{'AP on the validation set':<26}{'NMS-free':<34}with NMS")
    for variant, numbers in results.items():
        print(f"{variant:<26}" + "".join(ap_cell(numbers[f"{branch} AP"]) for branch in BRANCHES))
    print(f"{'public reference':<26}" + "".join(ap_cell(REFERENCE[branch]) for branch in BRANCHES))
    write("bccd", {"seeds": args.seeds, "ours": results, "reference": REFERENCE})


if __name__ == "__main__":
    main()
