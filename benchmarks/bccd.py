"""Train from scratch on the blood cells, several seeds per variant, and compare with the public reference.

``python -m benchmarks.bccd --root datasets/bccd`` trains the runs that are missing under ``--runs``, about 12 minutes each
on 2 cores. It evaluates both branches of each run's ``best.ckpt``, prints a table and writes
``benchmarks/results/bccd.json``.
"""

from pathlib import Path

from benchmarks.common import option_parser, write
from benchmarks.runs import as_arguments, by_metric, measure_all, print_ap, run_coco_eval, train
from detector.runs.folder import BEST_CHECKPOINT

CONFIGS = ["configs/data/bccd.yaml", "configs/bccd_scratch.yaml"]
# AP of the public reference (release 8.4.190) with these settings, three seeds
REFERENCE = {"one2one": [0.501, 0.502, 0.522], "one2many": [0.522, 0.548, 0.549]}


def measure(variant: str, seed: int, root: Path, runs: Path) -> dict[str, float]:
    """Return the APs of a run; train it if it is missing."""
    common = as_arguments({"data.root": root}, (f"configs/{variant}.yaml", *CONFIGS))
    seeded = as_arguments({"seed_everything": seed, "evaluation.branch": "one2one", "data.num_workers": 0})
    run = runs / f"bccd_{variant}_s{seed}"
    train([*common, *seeded], run, epochs=60)
    return run_coco_eval(common, run / BEST_CHECKPOINT, root)


def main() -> None:
    """Train, evaluate, print and write."""
    defaults = {"root": Path("datasets/bccd"), "runs": Path("runs"), "variants": ["yolo26_n", "dyn_n"], "seeds": [0, 1, 2]}
    args = option_parser(__doc__, **defaults).parse_args()
    measured = measure_all(lambda *run: measure(*run, args.root, args.runs), args.variants, args.seeds, jobs=1)
    results = {variant: by_metric(numbers) for variant, numbers in measured.items()}
    reference = {f"{branch} AP": values for branch, values in REFERENCE.items()}
    print_ap("AP on the validation set", results | {"public reference": reference})
    write("bccd", {"seeds": args.seeds, "ours": results, "reference": REFERENCE})


if __name__ == "__main__":
    main()
