"""From a study to its results: check everything, make folds, measure costs, train, write."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.common import print_table
from benchmarks.compare.costs import measure_costs
from benchmarks.compare.folds import write_folds
from benchmarks.compare.lock import locked
from benchmarks.compare.matching import matched_arms
from benchmarks.compare.networks import BuiltArm, arguments_of, build_arm, given_settings
from benchmarks.compare.page import make_page, make_plots
from benchmarks.compare.results import Results
from benchmarks.compare.study import Part, Study, file_name
from benchmarks.compare.tables import latex, make_tables, markdown, text_table
from benchmarks.compare.trainings import Run, Trainer, TrainPy, check_results, complete_all, load_hook
from data.annotations import Annotations
from detector.evaluation.coco_files import load_ground_truth
from detector.evaluation.constant_box import evaluate_constant_box, mean_boxes_of
from detector.files import atomic_write, read_json
from detector.imaging.plot_files import save_plot
from detector.network.head import BRANCHES
from detector.network.replace.block_files import add_import_folders

COSTS, MATCHED, NUMBERS = "costs.json", "matched.json", "study.json"


@dataclass(frozen=True)
class Plan:
    """A study that has been checked: its runs, the settings of its arms, and the AP of a constant box."""

    study: Study
    runs: list[Run]
    arms: dict[str, dict[str, Any]]
    floors: dict[str, dict[str, float]]
    remarks: list[str]  # differences between the arms that a reader must know


def compare(study: Study, jobs: int = 1, costs: bool = True, trainer: Trainer | None = None) -> Results:
    """Do all that a study still lacks, write its files and return its results. Raises ValueError before any training."""
    study.out.mkdir(parents=True, exist_ok=True)
    with locked(study.out) as lock:
        plan = make_plan(study)
        check_results(study.out, plan.runs)
        measured = costs_of(plan) if costs else None
        threads = max((os.cpu_count() or 1) // jobs, 1) if jobs > 1 else None
        trainer = trainer or TrainPy(study.out, study.folder, threads, lock)
        rows = complete_all(plan.runs, study.out, trainer, study.splits, study.after, jobs)
        results = Results(plan.study, rows, plan.floors, measured, plan.remarks)
        write_results(results, plan)
    return results


def make_plan(study: Study) -> Plan:
    """Build every arm on every data set and fold, to find mistakes; return the runs. Raises ValueError."""
    add_import_folders([study.folder])
    if study.after is not None:
        load_hook(study.after, study.folder)
    study = replace(study, arms=matched_arms(study, study.out / MATCHED))
    runs, floors, arms, remarks = [], {}, {}, []
    for data in study.data:
        built = {arm: build_arm(arm, arguments_of(study.part(arm, data))) for arm in study.arms}
        check_same_images(study, data, built)
        remarks += differences_in_training(study, data, built)
        parts = fold_parts(study, data, built[study.reference])
        floors[data] = mean_floor(study, data, built[study.reference], parts)
        for arm in study.arms:
            settings = given_settings(study.part(arm, data)) | fingerprints(built[arm], study.splits)
            arms.setdefault(arm, settings)
            runs += [
                make_run(study, arm, data, fold, seed, parts, settings, built[arm].epochs)
                for fold, seed in product(parts, study.seeds_of(arm))
            ]
    runs.sort(key=lambda run: study.seeds.index(run.seed) if run.seed in study.seeds else len(study.seeds))
    return Plan(study, runs, arms, floors, remarks)


def make_run(
    study: Study,
    arm: str,
    data: str,
    fold: int | None,
    seed: int,
    parts: Mapping[int | None, Part],
    settings: Mapping[str, Any],
    epochs: int,
) -> Run:
    """Return a run of the study; ``parts`` are the settings of each fold."""
    words = [file_name(data), file_name(arm), *([] if fold is None else [f"fold{fold}"]), f"s{seed}"]
    arguments = arguments_of(study.part(arm, data) + parts[fold])
    if fold is not None:
        settings = {**settings, "folds": study.folds, "fold_seed": study.fold_seed}
    return Run(arm, data, fold, seed, "_".join(filter(None, words)), tuple(arguments), settings, epochs)


def fold_parts(study: Study, data: str, built: BuiltArm) -> dict[int | None, Part]:
    """Return the settings of each fold; without folds an empty part under None."""
    if study.folds is None:
        return {None: Part()}
    splits = [built.data.annotations[split] for split in ("train", "val")]
    folds = write_folds(splits, study.folds, study.fold_seed, study.out / "folds" / file_name(data))
    return {number: Part((), settings) for number, settings in enumerate(folds)}


def check_same_images(study: Study, data: str, built: Mapping[str, BuiltArm]) -> None:
    """Raise ValueError if arms are evaluated on different images or objects, or if a split is missing."""
    for arm, split in product(built, study.splits):
        built[arm].data.check_split(split)
        if fingerprint(built[arm].data.annotations[split]) != fingerprint(built[study.reference].data.annotations[split]):
            where = f" of {data}" if data else ""
            raise ValueError(
                f"arm {arm!r} has other {split} images or objects{where} than {study.reference!r}, so their APs cannot be "
                "compared; give both the same data"
            )


def differences_in_training(study: Study, data: str, built: Mapping[str, BuiltArm]) -> list[str]:
    """Return a sentence for each arm that trains on other images than the reference, or for other epochs."""
    reference, remarks = built[study.reference], []
    where = f" on {data}" if data else ""
    for name, arm in built.items():
        if fingerprint(arm.data.annotations["train"]) != fingerprint(reference.data.annotations["train"]):
            remarks.append(f"{name} trains{where} on other images or objects than {study.reference}.")
        if arm.epochs != reference.epochs:
            remarks.append(f"{name} trains{where} for {arm.epochs} epochs, {study.reference} for {reference.epochs}.")
    return remarks


def fingerprint(annotations: Annotations) -> str:
    """Return a hash of the images and objects of a split."""
    arrays = (annotations.file_names, annotations.sizes, annotations.offsets, annotations.bboxes, annotations.labels)
    content = hashlib.sha256(repr(annotations.class_names).encode())
    for array in (*arrays, annotations.crowds):
        content.update(array.tobytes())
    return content.hexdigest()[:16]


def fingerprints(built: BuiltArm, splits: Sequence[str]) -> dict[str, str]:
    """Return hashes of what a result depends on beside its settings: the data, and the files of the user's own blocks."""
    data = {f"content of {split}": fingerprint(built.data.annotations[split]) for split in ("train", *splits)}
    blocks = built.module.hparams.block_files or {}
    return data | {f"content of {module}": facts["sha256"][:16] for module, facts in blocks.items()}


def mean_floor(study: Study, data: str, built: BuiltArm, parts: Mapping[int | None, Part]) -> dict[str, float]:
    """Return the AP of a constant box by column, the mean over folds; ``built`` is the reference on the whole set."""
    if study.folds is None:
        return floor(study, built)
    part = study.part(study.reference, data)
    floors = [floor(study, build_arm(study.reference, arguments_of(part + fold))) for fold in parts.values()]
    return {column: mean(scores[column] for scores in floors) for column in floors[0] if all(column in f for f in floors)}


def floor(study: Study, built: BuiltArm) -> dict[str, float]:
    """Return the AP of a constant box by column: the mean box of each class of train, the same on every image."""
    means = mean_boxes_of(load_ground_truth(built.data.ground_truth("train")))
    scores: dict[str, float] = {}
    for split in study.splits:
        result = evaluate_constant_box(load_ground_truth(built.data.ground_truth(split)), means)
        for branch, metric in product(BRANCHES, ("AP", "AP50")) if result else ():
            scores[f"{split} {branch} {metric}"] = result.metrics[metric]
    return scores


def costs_of(plan: Plan) -> dict[str, Any]:
    """Return the costs of all arms, measured now unless the folder has those of the same arms."""
    study, file = plan.study, plan.study.out / COSTS
    if file.exists() and (known := read_json(file, dict, "the costs of this study"))["settings"] == plan.arms:
        return known["costs"]
    print("measuring costs; nothing else should run", flush=True)
    data = next(iter(study.data))
    costs = measure_costs({arm: arguments_of(study.part(arm, data)) for arm in study.arms}, study.reference)
    with atomic_write(file) as path:
        path.write_text(json.dumps({"settings": plan.arms, "costs": costs}, indent=1) + "\n")
    return costs


def notes(results: Results) -> list[str]:
    """Return what a reader of the tables must know."""
    lines = [*results.remarks, f"* The {results.level_text()} interval does not contain 0."]
    if any(results.floors.values()):
        lines.append(
            "Constant box: the mean box of each class of the training data, the same on every image. A network whose AP is "
            "not above it shows nothing."
        )
    if results.costs:
        lines.append(
            f"Costs: {results.costs['conditions']}. Parameters and multiply-adds are those of the network as trained, with "
            "both branches; a training step has one batch; inference is that of the deployed NMS-free branch, batch 1. "
            "Ratios of times are medians over rounds in which all arms have a turn, with the 95 % interval of the median."
        )
    return lines


def write_results(results: Results, plan: Plan) -> None:
    """Write page, figures, tables and numbers into the folder of the study."""
    out, tables, plots = plan.study.out, make_tables(results), make_plots(results)
    files = {
        "report.html": make_page(results, plots, plan.arms, notes(results)),
        "tables.md": "\n".join(f"{titled.title}:\n\n{markdown(titled.table)}" for titled in tables),
        "tables.tex": "\n".join(f"% {titled.title}\n{latex(titled.table)}" for titled in tables),
        NUMBERS: json.dumps(numbers(results, plan), indent=1, default=str) + "\n",
    }
    for name, text in files.items():
        with atomic_write(out / name) as path:
            path.write_text(text, encoding="utf-8")
    for plot in plots:
        save_plot(plot, out / "figures")


def numbers(results: Results, plan: Plan) -> dict[str, Any]:
    """Return all numbers of a study for ``study.json``."""
    study = results.study
    differences = {
        arm: {
            data: {
                column: asdict(difference)
                | {"pairs_needed": results.needed(arm, data) if column == study.deciding else None}
                for column in results.columns
                if (difference := results.difference(arm, data, column)) is not None
            }
            for data in results.data_sets
        }
        for arm in results.compared
    }
    return {
        "study": study.name,
        "reference": study.reference,
        "level": results.level,
        "torch": torch.__version__,
        "arms": plan.arms,
        "differences": differences,
        "floors": results.floors,
        "costs": results.costs,
        "remarks": results.remarks,
        "rows": [{key: row[key] for key in ("arm", "data", "fold", "seed", "scores", "after")} for row in results.rows],
    }


def show_results(study: Study, file: Path) -> Results:
    """Return the results of a study.json for ``study``, without training. Raises ValueError for rows of unknown arms."""
    content = read_json(file, dict, "the study.json of a study")
    if not (rows := content.get("rows")):
        raise ValueError(f"{file}: has no results; give the study.json that a study has written into its folder")
    unknown = [row["arm"] for row in rows if row["arm"] not in study.arms] + [
        row["data"] for row in rows if row["data"] not in study.data
    ]
    if unknown:
        raise ValueError(f"{file}: has results of {unknown[0]!r}, which the study does not have")
    return Results(study, rows, content.get("floors") or {}, content.get("costs"), content.get("remarks") or [])


def print_results(results: Results) -> None:
    """Print all tables, what they show, and where the files are."""
    for titled in make_tables(results):
        print(f"\n{titled.title}:")
        print_table(*text_table(titled.table))
    print("", *notes(results), "", *results.verdicts(), *results.warnings(), sep="\n")
    if (results.study.out / "report.html").is_file():
        print(f"open {results.study.out / 'report.html'}")
