"""Train from scratch on the blood cells, several seeds a variant, and compare with the public reference.

``python -m benchmarks.bccd --root datasets/bccd`` trains whatever is missing under ``--runs`` (about 12 minutes a run on 2
cores), evaluates each run's ``best.ckpt`` with both branches, prints a table and writes ``benchmarks/results/bccd.json``.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np

from detector.coco_metrics import evaluate, load_ground_truth
from detector.evaluation import BRANCHES

RESULTS = Path(__file__).parent / "results" / "bccd.json"
CONFIGS = ["configs/data/bccd.yaml", "configs/bccd_scratch.yaml"]
# AP of the public reference (release 8.4.190) with these settings, three seeds; from the issue that set the goal
REFERENCE = {"one2one": [0.501, 0.502, 0.522], "one2many": [0.522, 0.548, 0.549]}


def command(variant: str, root: Path, *extra: str) -> list[str]:
    """Return the command line of a run."""
    configs = [part for config in (f"configs/{variant}.yaml", *CONFIGS) for part in ("--config", config)]
    return [sys.executable, "train.py", *configs, "--data.root", str(root), *extra]


def train(variant: str, seed: int, root: Path, run: Path) -> None:
    """Train into ``run`` unless that is done; an interrupted run is resumed."""
    extra = ["--seed_everything", str(seed), "--evaluation.branch", "one2one", "--data.num_workers", "0"]
    last_line = (run / "train.log").read_text().splitlines()[-1] if (run / "train.log").exists() else ""
    if last_line.split()[:1] == ["59"]:
        return
    where = ["--ckpt_path", str(run / "last.ckpt")] if (run / "last.ckpt").exists() else ["--run_dir", str(run)]
    subprocess.run(command(variant, root, *extra, *where), check=True)


def judge(variant: str, root: Path, run: Path) -> dict[str, float]:
    """Return AP and AP50 of both branches of the best checkpoint on the validation set, by pycocotools on the files."""
    folder = run / "eval_val"
    if not (folder / "predictions_one2many.json").exists():
        subprocess.run(command(variant, root, "--eval", str(run / "best.ckpt")), check=True, stdout=subprocess.DEVNULL)
    truth = load_ground_truth(root / "annotations" / "instances_val.json")
    numbers = {}
    for branch, name in zip(BRANCHES, ("predictions.json", "predictions_one2many.json")):
        found = json.loads((folder / name).read_text())
        rows = np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in found]).reshape(-1, 7)
        metrics = evaluate(truth, rows).metrics
        numbers |= {f"{branch} {metric}": metrics[metric] for metric in ("AP", "AP50")}
    return numbers


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
            run = args.runs / f"bccd_{variant}_s{seed}"
            train(variant, seed, args.root, run)
            for name, value in judge(variant, args.root, run).items():
                results.setdefault(variant, {}).setdefault(name, []).append(value)
    print(f"{'AP on the validation set':<26}{'NMS-free':<34}with NMS")
    for variant, numbers in results.items():
        print(f"{variant:<26}" + "".join(_cell(numbers[f"{branch} AP"]) for branch in BRANCHES))
    print(f"{'public reference':<26}" + "".join(_cell(REFERENCE[branch]) for branch in BRANCHES))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"seeds": args.seeds, "ours": results, "reference": REFERENCE}, indent=1) + "\n")


def _cell(values: list[float]) -> str:
    return f"{', '.join(f'{v:.3f}' for v in values) + f' (mean {mean(values):.3f})':<34}"


if __name__ == "__main__":
    main()
