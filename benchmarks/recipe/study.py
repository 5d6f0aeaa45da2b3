"""Which recipe is best on small sets? The study of docs/recipe-study.md, which has its protocol.

``python -m benchmarks.recipe.study --datasets DIR --weights FILE --jobs 2 --hours 2.75`` trains the runs that are missing,
round by round:

    source     two detectors from scratch, whose weights are the start from a detector (each for another set)
    screen     the configurations that are there, AdamW and the public reference's own choice; one seed
    rates      other learning rates; one seed
    seeds      the best arms of every start; three seeds
    curve      one run with a validation after every epoch, for averages of different length
    changes    warm-up and mosaic of the winner; one seed
    epochs     the winner, twice as long; from scratch also four times, beside the best hand-set arm
    rest       the seeds that the stage seeds left out: with a backbone, which is slow

DIR has the folders bccd, cards and coco128, and FILE the weights of EfficientNet-Lite0 (docs/recipe-study.md); without
``--weights`` there are no runs from a backbone. Each run is one thread on a CPU. A finished run leaves ``result.json``, and
is not repeated; one that was stopped starts anew. No run is started any more when the finished runs have taken ``--hours``,
divided among ``--jobs``. ``--plan`` prints the runs and minutes of each stage, ``--report`` the tables of the finished runs.
The tables go to benchmarks/results/recipe_study.json. ``--starts`` chooses starts: scratch, detector, backbone. ``--toy``
tries everything with tiny runs, whose results stay in ``--runs``.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, option_parser, print_table
from benchmarks.recipe.averages import FILE
from benchmarks.recipe.choice import cells_of
from benchmarks.recipe.numbers import ANY, numbers_of_run
from benchmarks.recipe.plan import ROUNDS, STARTS, expected_minutes, source_run, stage_runs
from benchmarks.recipe.settings import BACKBONE, DETECTOR, FULL, PATHS, SETS, TOY, Run, run_settings
from benchmarks.recipe.tables import jumps, print_start
from benchmarks.runs import measure_all, published_arguments, train
from detector.files import atomic_write, read_json
from detector.report.run_folder import read_run, series
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT

NAME = "recipe_study"
RESULT = "result.json"
DIVERGED = "had a loss or gradient that is not finite"  # in the message of NonFiniteLoss


class Study:
    """Trains the runs. It keeps no state: the run folders show which trainings are finished."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.datasets, self.runs, self.weights, self.jobs = args.datasets, args.runs, args.weights, args.jobs
        self.sizes = TOY if args.toy else FULL
        self.starts = [start for start in STARTS if start in args.starts and (start != BACKBONE or self.weights.name)]
        left = args.hours - sum(result["minutes"] for result in self.results()) / 60 / args.jobs
        self.end = time.monotonic() + 3600 * left if args.hours else float("inf")

    def check_data(self) -> None:
        """Raise ValueError if a set or the file of weights is missing."""
        missing = [self.datasets / name for name in SETS if not (self.datasets / name).is_dir()]
        missing += [self.weights] if self.weights.name and not self.weights.is_file() else []
        if missing:
            raise ValueError(f"{missing[0]}: is missing; give --datasets and --weights (docs/recipe-study.md)")

    def settings(self, run: Run) -> dict[str, Any]:
        """Return the settings of a run, as arguments of train.py."""
        weights = self.weights if run.start == BACKBONE else None
        if run.start == DETECTOR:
            weights = self.runs / source_run(run.data, self.sizes).name / LAST_CHECKPOINT
        return run_settings(run, self.sizes, self.datasets / run.data, weights)

    def measure(self, run: Run) -> bool:
        """Train a run if it is missing. Return False after a failure, which is printed, and when the time is over."""
        folder, settings = self.runs / run.name, self.settings(run)
        if (folder / RESULT).exists():
            self.check_settings(folder, settings)
            return True
        if time.monotonic() > self.end:
            print(f"{run.name}: not started, the time is over", flush=True)
            return False
        started = time.monotonic()
        try:
            outcome = self.train(run, folder, settings)
        except Exception as error:  # whatever it is, the other runs go on
            print(f"{run.name} failed: {error!r}", flush=True)
            return False
        minutes = (time.monotonic() - started) / 60
        result = {**run._asdict(), "settings": settings, "minutes": round(minutes, 2), **outcome}
        write_json(folder / RESULT, result)
        print(f"{run.name}: {result['numbers'][SETS[run.data].number]:.4f}, {minutes:.1f} minutes", flush=True)
        return True

    def train(self, run: Run, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Train a run, and return its numbers, its curve of AP and the numbers of its averages.

        A run whose loss is not finite any more has learned nothing: its numbers are 0.
        """
        shutil.rmtree(folder, ignore_errors=True)  # stopped before its end; its averages are lost
        try:
            arguments = published_arguments(settings, (SETS[run.data].config,))
            train(arguments, folder, run.epochs, self.runs / f"{run.name}.log")
        except RuntimeError as error:
            if DIVERGED not in str(error):
                raise
            return {"numbers": dict.fromkeys(("AP", "AP50", ANY), 0.0), "curve": [], "averages": {}, "diverged": True}
        (folder / BEST_CHECKPOINT).unlink(missing_ok=True)
        if run not in [source_run(data, self.sizes) for data in self.sizes.sets]:
            (folder / LAST_CHECKPOINT).unlink(missing_ok=True)
        averages = read_json(folder / FILE, dict, "the averages of a run")
        curve = series(read_run(folder).epochs, "val/AP")[1]
        return {"numbers": numbers_of_run(folder, run.data), "curve": curve, "averages": averages}

    def check_settings(self, folder: Path, settings: dict[str, Any]) -> None:
        """Raise ValueError if a finished run was trained with other settings than ``settings``."""
        old = read_json(folder / RESULT, dict, "the result of a run of the study")["settings"]
        names = (old.keys() | settings.keys()) - set(PATHS)
        if differing := sorted(name for name in names if old.get(name) != settings.get(name)):
            text = ", ".join(differing)
            raise ValueError(f"{folder}: was trained with other settings ({text}); remove it, or give other --runs")

    def train_all(self) -> bool:
        """Train the missing runs, round by round, until the time is over. Return True if all have finished.

        A run that fails is tried once more, and then left out: the rounds after it go on with what is there.
        """
        self.check_data()
        is_whole = True
        for stages in ROUNDS:
            cells = cells_of(self.results())
            runs = {run.name: run for stage in stages for run in stage_runs(stage, cells, self.sizes, self.starts)}
            is_finished = self.train_runs(runs) or (time.monotonic() <= self.end and self.train_runs(runs))
            is_whole &= is_finished
            if not is_finished and time.monotonic() > self.end:
                break
        return is_whole

    def train_runs(self, runs: dict[str, Run]) -> bool:
        """Train the missing ones of ``runs``, by name. Return True if all have finished."""
        finished = measure_all(lambda name, _: self.measure(runs[name]), runs, [0], self.jobs)
        return all(all(one) for one in finished.values())

    def results(self) -> list[dict[str, Any]]:
        """Return the results of all finished runs, sorted by their names, without paths."""
        results = []
        for file in sorted(self.runs.glob(f"recipe_*/{RESULT}")):
            result = read_json(file, dict, "the result of a run of the study")
            kept = {name: value for name, value in result["settings"].items() if name not in PATHS}
            results.append(result | {"settings": kept})
        return results

    def report(self) -> dict[str, Any]:
        """Print the tables of all finished runs, and return what they say."""
        results = self.results()
        content: dict[str, Any] = {start: print_start(start, results, self.sizes) for start in self.starts}
        content["jumps"] = jumps(results)
        for name, (usual, largest) in content["jumps"].items():
            print(f"AP from epoch to epoch, average {name}: changes by {usual:.4f}, at most {largest:.4f}")
        content["hours"] = sum(result["minutes"] for result in results) / 60
        print(f"\n{len(results)} runs, {content['hours']:.1f} hours of one thread")
        return content | {"runs": results}


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")


def print_plan() -> None:
    """Print the runs and minutes of each stage."""
    total, rows = 0.0, []
    for stage, (count, minutes) in expected_minutes(FULL).items():
        total += minutes
        rows.append([stage, str(count), f"{minutes:.0f}", f"{total:.0f}"])
    print_table(("stage", "runs", "minutes of a thread", "in all"), *rows)


def main() -> int:
    """Do what is asked for; return 1 if a run has failed or was not started."""
    defaults: dict[str, Any] = {"datasets": Path("datasets"), "weights": Path(), "runs": Path("runs"), "jobs": 1}
    defaults |= {"starts": list(STARTS), "hours": 0.0, "toy": False, "plan": False, "report": False}
    parser = option_parser(__doc__, **defaults)
    args = parser.parse_args()
    if unknown := set(args.starts) - set(STARTS):
        parser.error(f"--starts {', '.join(unknown)}: unknown; choose from {', '.join(STARTS)}")
    if args.plan:
        print_plan()
        return 0
    study = Study(args)
    try:
        is_whole = args.report or study.train_all()
    except ValueError as error:
        parser.error(str(error))
    content = study.report()
    write_json((args.runs if args.toy else RESULTS) / f"{NAME}.json", content)
    return 0 if is_whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
