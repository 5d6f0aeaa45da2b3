"""The first question of the study of dynamic layers: is an arm dynamic? From the routing.json of its runs."""

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import print_table
from detector.files import read_json
from detector.runs.folder import LAST_CHECKPOINT, ROUTING_NUMBERS

LEAST_LOSS, LEAST_RHO = 0.01, 0.01  # of the decision
RUNS_NEEDED = 3  # trained models of an arm
CONDITIONS = {  # of benchmarks.routing, and their names in the table
    "shuffled": "lost by shuffling",
    "shuffled within source": "within source",
    "shuffled across sources": "across",
    "averaged, norms recomputed": "averaged",
}
Numbers = dict[str, Any]  # a diagnosis, as in ``read_diagnosis``


def diagnose_runs(runs: Iterable[tuple[Path, Path]], jobs: int) -> bool:
    """Run benchmarks.routing for each run that has no routing.json: (run, its data). Return False if one has failed."""
    missing = [(run, data) for run, data in runs if not (run / ROUTING_NUMBERS).exists()]
    environment = os.environ | {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // jobs, 1))}

    def diagnose_run(run: Path, data: Path) -> bool:
        command = [sys.executable, "-m", "benchmarks.routing", str(run / LAST_CHECKPOINT), "--root", str(data)]
        finished = subprocess.run(command, capture_output=True, text=True, env=environment)
        text = "diagnosed" if finished.returncode == 0 else f"failed:\n{finished.stderr[-2000:]}"
        print(f"{run.name}: {text}", flush=True)
        return finished.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(lambda pair: diagnose_run(*pair), missing)))


def read_diagnosis(run: Path) -> Numbers | None:
    """Return the numbers of a run that the decision and the tables need; None if it has not been diagnosed.

    ``rho`` is the mean over the layers, ``AP`` the macro AP as is, ``lost`` the loss of macro AP by condition: its value and
    the ends of its 95 % interval. ``nearest`` is the accuracy of a guess of the source from the routing, ``chance`` that of
    the most frequent source.
    """
    if not (run / ROUTING_NUMBERS).exists():
        return None
    content = read_json(run / ROUTING_NUMBERS, dict, "the numbers of benchmarks.routing")
    part = "macro" if "macro" in content["ap"]["as is"] else "all"
    source = content["all_layers"].get("source", {})
    return {
        "rho": mean(layer["rho"] for layer in content["layers"].values()),
        "AP": content["ap"]["as is"][part],
        "lost": {name: content["drops"][name][part] for name in CONDITIONS if name in content["drops"]},
        "nearest": source.get("accuracy"),
        "chance": source.get("chance"),
    }


def is_dynamic(numbers: Numbers) -> bool:
    """Return True if shuffling the routing costs macro AP beyond chance, and the kernels vary: the decision, for one run."""
    return numbers["lost"]["shuffled"]["low"] > LEAST_LOSS and numbers["rho"] > LEAST_RHO


def verdict(runs: list[Numbers]) -> str:
    """Return the decision for an arm: all of its runs must be dynamic, and there must be three."""
    if not all(map(is_dynamic, runs)):
        return "no"
    return "yes" if len(runs) >= RUNS_NEEDED else f"in {len(runs)} of {len(runs)}, needs {RUNS_NEEDED}"


def print_diagnoses(stage: str, arms: dict[str, dict[int, Numbers]]) -> None:
    """Print a line for each diagnosed run of a stage, by arm and seed, and the decision beside the last run of an arm."""
    rows = []
    for arm, runs in arms.items():
        for seed, numbers in runs.items():
            lost = [_loss_text(numbers["lost"].get(name)) for name in CONDITIONS]
            guess = "-" if numbers["nearest"] is None else f"{numbers['nearest']:.2f} ({numbers['chance']:.2f})"
            rows.append([f"{arm}, seed {seed}", f"{numbers['rho']:.4f}", f"{numbers['AP']:.3f}", *lost, guess, ""])
        rows[-1][-1] = verdict(list(runs.values()))
    heading = (f"{stage}: is it dynamic?", "rho", "macro AP", *CONDITIONS.values(), "source from routing", "dynamic")
    print()
    print_table(heading, *rows)


def _loss_text(loss: dict[str, float] | None) -> str:
    return "-" if loss is None else f"{loss['value']:.3f} ({loss['low']:.3f} to {loss['high']:.3f})"
