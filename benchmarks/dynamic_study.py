"""When is a dynamic layer dynamic, and when does it help? The study of docs/dynamic-study.md, which has its protocol.

``python -m benchmarks.dynamic_data --out datasets/dynamic`` writes the data. Then, stage by stage,
``python -m benchmarks.dynamic_study --stage control --jobs 2`` trains the arms that are missing. A finished run leaves
``result.json`` and its ``last.ckpt``, and is not repeated; one that was stopped continues. The stages:

    control    shapes whose style changes their label: can it work at all?
    joint      blood cells, cards, shapes and photographs of persons in one set
    scale      shapes, 200, 800 and 3,200 images for training, with the same number of steps
    imagenet   the joint set, from an ImageNet backbone (``--weights FILE``), its plain kernels converted

``--arms`` and ``--seeds`` choose the runs. Without ``--stage``:

    --plan       prints how many pairs of runs a difference of AP needs, from the spread of the plain runs
    --diagnose   measures for each finished run of a dynamic arm how its AP depends on the routing (benchmarks.routing)
    --report     prints the tables of all finished runs, and writes benchmarks/results/dynamic_study.json and a figure

``--num_arms`` is the number of arms that question 3 of the protocol is asked for: its level is 5 % / ``num_arms``.

All APs are those of the averaged weights after the last epoch. The deciding number is the NMS-free macro AP, the mean of the
APs of the sources.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import option_parser, write
from benchmarks.dynamic_diagnosis import diagnose_runs, print_diagnoses, read_diagnosis
from benchmarks.dynamic_figure import save_figure
from benchmarks.dynamic_tables import by_stage_and_arm, macro_ap, print_help, print_plan, print_sources
from benchmarks.runs import ap_by_source, measure_all, published_arguments, train
from detector.files import atomic_write, read_json
from detector.runs.folder import BEST_CHECKPOINT

RESULT = "result.json"
BATCH = 16
PLACE = "backbone-bottlenecks"
BN = {"router_norm": "batch"}
GATED_CONV = {"class_path": "benchmarks.squeeze_excitation.SqueezeExcitedConv", "init_args": {}}
ARMS: dict[str, dict[str, Any]] = {  # fields of the detector's configuration that differ from yolo26_n
    "plain": {},
    "residual": {"dynamic": {"kind": "residual", "num_experts": 4, "routing": "centred"} | BN},
    "omni_if": {"dynamic": {"kind": "omni", "num_experts": 1, "gates": ["input", "filter"]} | BN},
    "omni_all": {"dynamic": {"kind": "omni", "num_experts": 1, "gates": ["input", "filter", "position"]} | BN},
    "residual_softmax": {"dynamic": {"kind": "residual", "num_experts": 4, "routing": "softmax"} | BN},
    "mixture": {"dynamic": {"kind": "mixture", "num_experts": 4, "routing": "sigmoid"}},
    "se": {"replace": [{"layer": GATED_CONV}]},  # goes into model.replace, not into overrides
    "wide": {"width": 0.28},
}
PATHS = ("data.root", "model.backbone_weights")  # settings that may be elsewhere on another day or machine
DYNAMIC_ARMS = [name for name, fields in ARMS.items() if "dynamic" in fields]
NO_MOSAIC = {"mosaic": 0.0}  # a mosaic would have several sources, but an image has one routing
SAME_STYLE = NO_MOSAIC | {"hsv": [0.0, 0.0, 0.0], "scale": 0.3}  # colors are part of a style; small shapes stay visible


@dataclass(frozen=True)
class Stage:
    """The data and the settings that all arms of a stage share."""

    data: str  # the folder of the set, written by dynamic_data
    size: int  # of the network input, in px
    epochs: int
    augment: dict[str, Any] = field(default_factory=lambda: NO_MOSAIC)
    where: str | tuple[str, ...] = PLACE
    settings: dict[str, Any] = field(default_factory=dict)  # further arguments of train.py
    configs: tuple[str, ...] = ("configs/yolo26_n.yaml",)


IMAGENET = {"model.backbone": "timm/efficientnet_lite0"}  # and the rest of the recipe
STAGES = {
    "control": Stage("control", 128, 30, SAME_STYLE),
    "joint": Stage("joint", 160, 15),
    "shapes_200": Stage("shapes_200", 160, 80),
    "shapes_800": Stage("shapes_800", 160, 20),
    "shapes_3200": Stage("shapes_3200", 160, 5),
    "imagenet": Stage(
        "joint", 160, 10, where=("backbone-pointwise", "backbone-depthwise"), settings=IMAGENET,
        configs=("configs/finetune_backbone.yaml",),
    ),
}  # fmt: skip
GROUPS = {"scale": ("shapes_200", "shapes_800", "shapes_3200")}  # names of --stage that stand for several


def network_settings(arm: str, where: str | tuple[str, ...]) -> dict[str, str]:
    """Return the arguments of train.py for the network of an arm, whose layers are at ``where``."""
    fields, settings = dict(ARMS[arm]), {}
    if "replace" in fields:
        settings["model.replace"] = json.dumps([entry | {"where": where} for entry in fields.pop("replace")])
    if "dynamic" in fields:
        fields["dynamic"] = {"where": where, **fields["dynamic"]}
    return settings | ({"model.overrides": json.dumps(fields)} if fields else {})


class Study:
    """Trains arms. It keeps no state: the run folders show which trainings are finished."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.data, self.runs, self.jobs, self.weights = args.data, args.runs, args.jobs, args.weights
        self.epochs = args.epochs

    def run_of(self, stage: str, arm: str, seed: int) -> Path:
        """Return the run folder."""
        return self.runs / f"dynamic_{stage}_{arm}_s{seed}"

    def settings(self, stage: str, arm: str, seed: int) -> dict[str, Any]:
        """Return the settings of a run, as arguments of train.py."""
        fixed = STAGES[stage]
        epochs = self.epochs or fixed.epochs
        settings = {
            "data.root": str(self.data / fixed.data),
            "data.test_annotations": "null",
            "data.test_images": "null",
            "data.image_size": fixed.size,
            "data.batch_size": BATCH,
            "data.num_workers": 0,
            "data.cache": "ram",
            "data.augment": json.dumps(fixed.augment),
            "model.nominal_batch": BATCH,  # a step every batch: with 64 there are too few steps to learn
            "model.warmup_epochs": epochs / 10,
            "trainer.max_epochs": epochs,
            "trainer.check_val_every_n_epoch": epochs,
            "trainer.accelerator": "cpu",
            "trainer.devices": 1,
            "trainer.enable_progress_bar": "false",
            "seed_everything": seed,
        }
        weights = {"model.backbone_weights": str(self.weights)} if fixed.settings is IMAGENET else {}
        return settings | fixed.settings | weights | network_settings(arm, fixed.where)

    def measure(self, stage: str, arm: str, seed: int) -> dict[str, Any] | None:
        """Return the result of a run, trained if it is missing; None after a failure, which is printed."""
        run, settings = self.run_of(stage, arm, seed), self.settings(stage, arm, seed)
        if not (run / RESULT).exists():
            started = time.time()
            arguments = published_arguments(settings, ("configs/data/bccd.yaml", *STAGES[stage].configs))
            try:
                train(arguments, run, settings["trainer.max_epochs"], self.runs / f"{run.name}.log")
            except RuntimeError as error:
                print(error, flush=True)
                return None
            aps = ap_by_source(run, self.data / STAGES[stage].data)
            result = {"stage": stage, "arm": arm, "seed": seed, "settings": settings, "AP": aps}
            with atomic_write(run / RESULT) as unfinished:
                unfinished.write_text(json.dumps(result, indent=1) + "\n")
            (run / BEST_CHECKPOINT).unlink(missing_ok=True)  # the same weights as last.ckpt: only they were validated
            minutes = (time.time() - started) / 60
            print(f"{run.name}: macro AP {macro_ap(result):.4f}, {minutes:.1f} minutes", flush=True)
        return self.read(run, settings)

    def read(self, run: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a finished run. Raises ValueError if it was trained with other settings than ``settings``."""
        result = read_json(run / RESULT, dict, "the result of a run of the study")
        differing = [k for k in settings if k not in PATHS and result["settings"].get(k) != settings[k]]
        if differing or result["settings"].keys() != settings.keys():
            names = ", ".join(differing) or "others"
            raise ValueError(f"{run}: was trained with other settings ({names}); remove it, or give other --runs")
        return result

    def train_all(self, stages: list[str], arms: list[str], seeds: list[int]) -> bool:
        """Train the missing runs, all arms of the first seed first. Return True if all have finished."""
        by_name = {f"{stage} {arm}": (stage, arm) for stage, arm in product(stages, arms)}
        results = measure_all(lambda name, seed: self.measure(*by_name[name], seed), by_name, seeds, self.jobs)
        return all(result is not None for of_seeds in results.values() for result in of_seeds)

    def results(self) -> list[dict[str, Any]]:
        """Return the results of all finished runs: by stage and arm, in the order of their tables, and seed.

        Runs of other arms, such as those that only explored, decide nothing: they are named and left out.
        """
        files = self.runs.glob(f"dynamic_*/{RESULT}")
        results = [read_json(file, dict, "the result of a run of the study") for file in files]
        stages, arms = list(STAGES), list(ARMS)
        if others := sorted({result["arm"] for result in results if result["arm"] not in arms}):
            print(f"left out, because the study has no such arm: {', '.join(others)}")
            results = [result for result in results if result["arm"] in arms]
        return sorted(results, key=lambda r: (stages.index(r["stage"]), arms.index(r["arm"]), r["seed"]))

    def diagnose(self) -> bool:
        """Measure how the AP of each finished run of a dynamic arm depends on its routing. Return False after a failure."""
        dynamic = [result for result in self.results() if result["arm"] in DYNAMIC_ARMS]
        runs = [(self.run_of(r["stage"], r["arm"], r["seed"]), self.data / STAGES[r["stage"]].data) for r in dynamic]
        return diagnose_runs(runs, self.jobs)

    def report(self, num_arms: int) -> dict[str, Any]:
        """Print the tables of all stages that have results, and return the numbers."""
        results = self.results()
        for result in results:
            result["settings"] = {name: value for name, value in result["settings"].items() if name not in PATHS}
        content: dict[str, Any] = {"num_arms": num_arms, "dynamic": {}, "help": {}, "runs": results}
        for stage, arms in by_stage_and_arm(results).items():
            diagnoses: dict[str, dict[int, Any]] = {}
            for arm, seed in ((arm, seed) for arm, aps in arms.items() for seed in aps):
                if numbers := read_diagnosis(self.run_of(stage, arm, seed)):
                    diagnoses.setdefault(arm, {})[seed] = numbers
            if diagnoses:
                print_diagnoses(stage, diagnoses)
            content["dynamic"][stage] = diagnoses
            content["help"][stage] = print_help(stage, arms, num_arms)
            print_sources(stage, [result for result in results if result["stage"] == stage])
        return content


def main() -> int:
    """Do what is asked for; return 1 if a run has failed."""
    defaults: dict[str, Any] = {"stage": ["none"], "arms": list(ARMS), "seeds": [0], "jobs": 1, "epochs": 0}
    defaults |= {"data": Path("datasets/dynamic"), "runs": Path("runs"), "plan": False}
    defaults |= {"diagnose": False, "report": False}
    defaults |= {"num_arms": 2, "weights": Path("efficientnet_lite0_in1k.safetensors")}
    parser = option_parser(__doc__, **defaults)
    args = parser.parse_args()
    stages = [name for stage in args.stage if stage != "none" for name in GROUPS.get(stage, (stage,))]
    for option, names, known in (("stage", stages, [*STAGES, *GROUPS]), ("arms", args.arms, list(ARMS))):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"--{option} {unknown[0]}: unknown; choose from {', '.join(known)}")
    if not (stages or args.plan or args.diagnose or args.report):
        parser.error("nothing to do; give --stage, --plan, --diagnose or --report")
    study = Study(args)
    is_whole = study.train_all(stages, args.arms, args.seeds)
    if args.diagnose:
        is_whole = study.diagnose() and is_whole
    if args.plan:
        print_plan(study.results(), args.num_arms)
    if args.report:
        content = study.report(args.num_arms)
        write("dynamic_study", content)
        save_figure(content)
    return 0 if is_whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
