"""Does pre-training on much data pay more with experts? The study of docs/pretraining-study.md, which has its protocol.

``python -m benchmarks.pretraining.sources`` writes the data. Then
``python -m benchmarks.pretraining.study --jobs 2 --hours 6`` trains the runs that are missing, all of one seed before those
of the next. For each network (plain, experts):

    pretrain        on little and on much data (fractals), with the same number of steps
    finetune        on the labeled set (``--labeled``), from scratch and from both
    bccd, cards     detectors, from scratch and from both (``--datasets`` has the two folders)

A finished run leaves ``result.json`` and is not repeated; one that was stopped continues. No run is started any more when
the finished runs have taken ``--hours``, divided among ``--jobs``. In the end, and with ``--report`` alone, the tables of
all finished runs are printed and written to benchmarks/results and docs/figures. ``--toy`` makes everything
very small, to try the commands; its results stay in ``--runs``.

All numbers are those of the averaged weights after the last epoch. The deciding number is the interaction: what the network
with experts gains in top-1 of the labeled set from much data, over little, minus what the plain network gains.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import RESULTS, costs, option_parser
from benchmarks.figure_files import FIGURES
from benchmarks.pretraining.figure import save_figure
from benchmarks.pretraining.settings import (
    DETECTOR_SETS,
    FULL,
    NETWORKS,
    PATHS,
    SCRATCH,
    STARTS,
    TOY,
    detector_settings,
    finetuning_settings,
    pretraining_settings,
)
from benchmarks.pretraining.sources import LABELED, MANIFEST
from benchmarks.pretraining.tables import FINETUNE, NUMBER, PRETRAIN, STAGES, by_stage, print_publication, print_stage
from benchmarks.runs import as_arguments, measure_all, train, written_ap
from detector import build_detector
from detector.files import atomic_write, read_json
from detector.runs.folder import BEST_CHECKPOINT, LAST_CHECKPOINT

NAME = "pretraining_study"
RESULT = "result.json"
CLASSIFICATION = "classification.json"
DETECTOR_CONFIGS = ("configs/published.yaml", "configs/data/bccd.yaml")  # both sets have the layout of bccd
CHAINS = {f"{network} {start}": (network, start) for network in NETWORKS for start in STARTS}


class Run(NamedTuple):
    """One training of the study."""

    stage: str
    network: str
    start: str  # the amount of data of a pre-training
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{NAME}_{self.stage}_{self.network}_{self.start}_s{self.seed}"


def chain(network: str, start: str, seed: int) -> list[Run]:
    """Return the runs that belong to a network, a start and a seed, in their order."""
    stages = [stage for stage in STAGES if stage != PRETRAIN or start != SCRATCH]
    return [Run(stage, network, start, seed) for stage in stages]


class Study:
    """Trains the runs. It keeps no state: the run folders show which trainings are finished."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.data, self.datasets, self.runs, self.labeled = args.data, args.datasets, args.runs, args.labeled
        self.sizes, self.jobs = TOY if args.toy else FULL, args.jobs
        left = args.hours - sum(result["minutes"] for result in read_results(self.runs)) / 60 / args.jobs
        self.end = time.monotonic() + 3600 * left if args.hours else float("inf")

    def check_data(self) -> None:
        """Raise ValueError if a set is missing."""
        missing = [self.data / name for name in (*STARTS[1:], self.labeled) if not (self.data / name / MANIFEST).exists()]
        missing += [self.datasets / name for name in DETECTOR_SETS if not (self.datasets / name).is_dir()]
        if missing:
            raise ValueError(
                f"{missing[0]}: is missing. python -m benchmarks.pretraining.sources writes --data; docs/results.md says "
                "how to get the detectors' sets, which are in --datasets"
            )

    def settings(self, run: Run) -> dict[str, Any]:
        """Return the settings of a run, as arguments of pretrain.py or train.py."""
        if run.stage == PRETRAIN:
            return pretraining_settings(self.sizes, self.data, run.network, run.start, run.seed)
        weights = None if run.start == SCRATCH else self.runs / run._replace(stage=PRETRAIN).name / LAST_CHECKPOINT
        if run.stage == FINETUNE:
            return finetuning_settings(self.sizes, self.data, self.labeled, run.network, weights, run.seed)
        return detector_settings(self.sizes, self.datasets / run.stage, run.network, weights, run.seed)

    def measure_chain(self, name: str, seed: int) -> bool:
        """Train the missing runs of a chain. Return False after a failure, which is printed, and when the time is over."""
        return all(self.measure(run) for run in chain(*CHAINS[name], seed))

    def measure(self, run: Run) -> dict[str, Any] | None:
        """Return the result of a run, trained if it is missing; None after a failure, and when the time is over."""
        folder, settings = self.runs / run.name, self.settings(run)
        if not (folder / RESULT).exists():
            if time.monotonic() > self.end:
                print(f"{run.name}: not started, the time is over", flush=True)
                return None
            started = time.monotonic()
            try:
                numbers = self.train(run, folder, settings)
            except RuntimeError as error:
                print(error, flush=True)
                return None
            minutes = (time.monotonic() - started) / 60
            result = {**run._asdict(), "settings": settings, "minutes": round(minutes, 2), "numbers": numbers}
            write_json(folder / RESULT, result)
            (folder / BEST_CHECKPOINT).unlink(missing_ok=True)  # the weights of last.ckpt: only they were validated
            print(f"{run.name}: {numbers[NUMBER[run.stage]]:.4f}, {minutes:.1f} minutes", flush=True)
        return self.read(folder, settings)

    def train(self, run: Run, folder: Path, settings: dict[str, Any]) -> dict[str, float]:
        """Train a run, or go on with it, and return its numbers."""
        is_detector = run.stage in DETECTOR_SETS
        program, configs = ("train.py", DETECTOR_CONFIGS) if is_detector else ("pretrain.py", ())
        log = self.runs / f"{run.name}.log"
        train(as_arguments(settings, configs), folder, settings["trainer.max_epochs"], log, program)
        return written_ap(folder) if is_detector else read_accuracy(folder)

    def read(self, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a finished run. Raises ValueError if it was trained with other settings than ``settings``."""
        result = read_json(folder / RESULT, dict, "the result of a run of the study")
        old, names = result["settings"], (result["settings"].keys() | settings.keys()) - set(PATHS)
        if differing := sorted(name for name in names if old.get(name) != settings.get(name)):
            text = ", ".join(differing)
            raise ValueError(f"{folder}: was trained with other settings ({text}); remove it, or give other --runs")
        return result

    def train_all(self, seeds: list[int]) -> bool:
        """Train the missing runs, all of the first seed first. Return True if all have finished."""
        self.check_data()
        finished = measure_all(self.measure_chain, CHAINS, seeds, self.jobs)
        return all(all(of_seeds) for of_seeds in finished.values())

    def report(self) -> dict[str, Any]:
        """Print the tables of all stages that have results, and return the numbers."""
        results = read_results(self.runs)
        table = by_stage(results)
        content: dict[str, Any] = {"costs": network_costs(self.sizes.class_size)}
        content["stages"] = {stage: print_stage(stage, cells) for stage, cells in table.items()}
        content["publication"] = print_publication(table)
        content["hours"] = sum(result["minutes"] for result in results) / 60
        print(f"\n{len(results)} runs, {content['hours']:.1f} hours of one thread")
        return content | {"runs": results}


def read_results(runs: Path) -> list[dict[str, Any]]:
    """Return the results of all finished runs, sorted by stage, network, start and seed, without paths."""
    results = []
    for stage, (network, start) in product(STAGES, CHAINS.values()):
        for file in sorted(runs.glob(f"{NAME}_{stage}_{network}_{start}_s*/{RESULT}")):
            result = read_json(file, dict, "the result of a run of the study")
            kept = {name: value for name, value in result["settings"].items() if name not in PATHS}
            results.append(result | {"settings": kept})
    return results


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")


def read_accuracy(folder: Path) -> dict[str, float]:
    """Return the top-1 and top-5 accuracy (0..1) of a finished run of pretrain.py."""
    content = read_json(folder / CLASSIFICATION, dict, "the result of a run of pretrain.py")
    return {name: content[name] for name in ("top1", "top5")}


def network_costs(size: int) -> dict[str, dict[str, int]]:
    """Return the parameters and multiply-adds of the backbone of each network, for one image of ``size`` px."""
    numbers = {}
    for network, fields in NETWORKS.items():
        parameters, multiply_adds = costs(build_detector("yolo26_n", 1, **fields).backbone.eval(), size)
        numbers[network] = {"parameters": parameters, "multiply_adds": multiply_adds}
    return numbers


def main() -> int:
    """Do what is asked for; return 1 if a run has failed or was not started."""
    defaults: dict[str, Any] = {"data": Path("datasets/pretraining"), "datasets": Path("datasets"), "runs": Path("runs")}
    defaults |= {"labeled": LABELED[0], "seeds": [1, 2, 3, 4, 5], "jobs": 1, "hours": 0.0, "toy": False, "report": False}
    parser = option_parser(__doc__, **defaults)
    args = parser.parse_args()
    if args.labeled not in LABELED:
        parser.error(f"--labeled {args.labeled}: unknown; choose from {', '.join(LABELED)}")
    study = Study(args)
    try:
        is_whole = args.report or study.train_all(args.seeds)
    except ValueError as error:
        parser.error(str(error))
    content = study.report()
    results, figures = (args.runs, args.runs) if args.toy else (RESULTS, FIGURES)
    write_json(results / f"{NAME}.json", content)
    save_figure(content, figures / f"{NAME}.svg")
    return 0 if is_whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
