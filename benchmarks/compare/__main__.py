"""Compare detectors fairly: arms x seeds x data sets or folds, with paired differences, their intervals, and costs.

``python -m benchmarks.compare STUDY.yaml``, or without a file
``python -m benchmarks.compare --arm plain=a.yaml --arm mine=b.yaml --seeds 0 1 2 --config configs/data/mine.yaml``

trains the runs that are missing in the folder of the study (``out``, by default ``runs/<name>``) and writes there
``report.html``, ``figures/``, ``tables.md``, ``tables.tex`` and ``study.json``. A stopped study continues where it was, with
the same table. docs/compare.md explains the study file. ``--results FILE`` prints the tables of finished results instead,
without training.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.common import option_parser
from benchmarks.compare.pipeline import compare, print_results, show_results
from benchmarks.compare.study import Study, make_study, read_study
from detector.text import print_any_name


def parse_options(args: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY", help="study file, YAML")
    arm_help = "arms, each with one or more files: NAME=FILE,FILE; the first is the reference"
    for option, metavar, text in (
        ("--arm", "NAME=FILE", arm_help),
        ("--config", "FILE", "configuration files of all arms, such as data"),
        ("--set", "NAME=VALUE", "settings of all arms"),
    ):
        parser.add_argument(option, nargs="+", action="extend", default=[], metavar=metavar, help=text)
    parser.add_argument("--seeds", nargs="+", type=int, help="(0 1 2)")
    parser.add_argument("--folds", type=int, help="folds of the images of train and val")
    parser.add_argument("--reference", help="arm to compare with")
    parser.add_argument("--out", type=Path, help="folder of the study")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; they share the cores (%(default)s)")
    parser.add_argument("--no_costs", action="store_true", help="do not measure costs")
    parser.add_argument("--results", type=Path, help="results to show instead of training: a study.json")
    return parser.parse_args(args)


def study_of(options: argparse.Namespace) -> Study:
    """Return the study of a file or of the options. Raises ValueError for mistakes in it, and for both at once."""
    given = {name: getattr(options, name) for name in ("seeds", "folds", "reference")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.out is not None:
        given["out"] = options.out
    if options.study is not None:
        if given.keys() - {"out"} or options.arm or options.config or options.set:
            raise ValueError("give a study file, or --arm and the other options; a study file has all of them but --out")
        study = read_study(options.study)
        return study if options.out is None else study.at(options.out)
    arms, settings = _pairs(options.arm, "--arm"), _pairs(options.set, "--set")
    if not arms:
        raise ValueError("give a study file, before the options, or two or more --arm NAME=FILE")
    content = {"arms": {name: files.split(",") for name, files in arms.items()}, "configs": options.config}
    content["settings"] = settings
    return make_study(content | given, "-".join(arms), Path.cwd())


def _pairs(words: list[str], option: str) -> dict[str, str]:
    """Return NAME=VALUE words as a dict. Raises ValueError for another form, and for a name that is given twice."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"{option} {word}: expected {option} NAME=VALUE")
        if name in pairs:
            raise ValueError(f"{option}: the name {name!r} is given twice; names must differ")
        pairs[name] = value
    return pairs


def _stop(number: int, frame: Any) -> NoReturn:
    print("\nstopping the trainings; the same command continues", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)


def main(args: list[str] | None = None) -> None:
    """Train the missing runs, print, write."""
    print_any_name()
    options = parse_options(args)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)  # so that the trainings end, too
    try:
        study = study_of(options)
        if not 1 <= options.jobs <= (os.cpu_count() or 1) * 4:
            raise ValueError(f"--jobs is {options.jobs}; expected 1 or more, about the number of cores at most")
        if options.results is not None:
            print_results(show_results(study, options.results))
        else:
            print_results(compare(study, options.jobs, not options.no_costs))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
