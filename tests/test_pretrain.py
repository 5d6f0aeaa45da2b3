"""pretrain.py as users run it: the five commands of docs/pretraining.md, every setting, and wrong uses."""

import csv
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import evaluate
import pretrain
import train
from data import ImageFolderDataModule
from data.classification.augmentation import ClassAugmentation
from data.shapes.__main__ import main as draw
from detector.__main__ import main as detector_command
from detector.callbacks import ClassEvaluation, NonFiniteGuard, Patience, RampedEMA, SaveOnSignal
from detector.commands.pretrain_cli import PretrainCLI
from detector.commands.programs import PRETRAIN, TRAIN, Program
from detector.commands.run_cli import CONFIGS
from detector.option_errors import option_names
from tests.conftest import TRAIN_IMAGES, VAL_IMAGES, write_coco
from tests.docs_commands import ROOT, ParsedPretraining, ParsedTraining, examples

PAGE = ROOT / "docs" / "pretraining.md"
CLASSES = ["circle", "square", "star", "triangle"]
# Settings that make the commands of the page small.
NETWORK = "--model.overrides={width: 0.125, depth: 0.33}"
QUICK = ["--trainer.accelerator=cpu", "--data.num_workers=0"]
PRETRAINING = [*QUICK, NETWORK, "--data.image_size=32", "--data.license=CC0-1.0", "--data.provenance=drawn by us"]
DETECTOR = [
    *QUICK,
    NETWORK,
    "--data.root=tiny",
    "--data.image_size=64",
    "--trainer.max_epochs=1",
    "--model.freeze=[backbone]",
]
DETECTOR += ["--data.train_images=images/train", "--data.val_images=images/val", "--data.batch_size=4"]


def commands() -> list[list[str]]:
    """Return the words of the five commands at the beginning of the page, without "python"."""
    words = [shlex.split(example)[1:] for kind, example in examples(PAGE) if kind == "sh"]
    return [[str(ROOT / word) if word.startswith("configs/") else word for word in command] for command in words[:5]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the five commands, small, in this process, and return the folder of the pre-training.

    The working directory has datasets/single_shapes, runs/pretrain_dyn_n, runs/dyn_n, and the detection set tiny.
    """
    folder = tmp_path_factory.mktemp("pretraining")
    write_coco(folder / "tiny", "train", TRAIN_IMAGES, first_id=101)
    write_coco(folder / "tiny", "val", VAL_IMAGES, first_id=201)
    drawing, pretraining, resuming, reporting, detecting = commands()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw(drawing[2:])
        pretrain.main([*pretraining[1:], *PRETRAINING])
        pretrain.main(resuming[1:])
        detector_command(reporting[2:])
        train.main([*detecting[1:], *DETECTOR])
        yield Path("runs/pretrain_dyn_n")


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


@pytest.mark.filterwarnings("ignore")
def test_the_five_commands_of_the_page(run: Path) -> None:
    files = ("best.ckpt", "last.ckpt", "config.yaml", "config-2.yaml", "run.json", "train.log", "metrics.csv", "routing.png")
    for name in (*files, "resumed-2/metrics.csv", "classification.json", "report.html"):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").glob("events*"))
    header, *lines = [line.split() for line in (run / "train.log").read_text().splitlines()]
    assert header[:3] == ["epoch", "top1", "top5"]
    assert [line[0] for line in lines] == ["1/2", "2/2", "epoch", "3/4", "4/4"]

    results = json.loads((run / "classification.json").read_text())
    logged = {row["epoch"]: row for row in table(run / "resumed-2" / "metrics.csv") if row["val/top1"]}
    assert results["epoch"] == 4
    assert results["top1"] == pytest.approx(float(logged["3"]["val/top1"]))
    assert [(row["name"], row["images"]) for row in results["classes"]] == [(name, 10) for name in CLASSES]
    assert Path(results["folder"], results["mistakes"][0]["image"]).is_file()

    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert {state["monitor"] for key, state in checkpoint["callbacks"].items() if "ModelCheckpoint" in key} == {
        "val/top1",
        None,
    }
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (3, 4 * 10)
    assert checkpoint["hyper_parameters"]["class_names"] == CLASSES
    assert checkpoint["weights_info"]["data_license"] == "CC0-1.0"
    page = (run / "report.html").read_text()
    assert all(f'id="{part}"' in page for part in ("classes", "confusions", "images", "training", "routing", "network"))
    assert "could not be shown" not in page

    # The backbone was frozen: all its tensors are those of the pre-training, averaged weights of dynamic layers included.
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    detector = torch.load("runs/dyn_n/last.ckpt", weights_only=True)
    names = [name for name in detector["state_dict"] if name.startswith("model.backbone.")]
    assert any(".router." in name for name in names)
    assert all(torch.equal(detector["state_dict"][n], best[n.replace("model.", "model.network.", 1)]) for n in names)
    assert detector["weights_info"]["data_license"] == "CC0-1.0"
    assert "drawn by us" in detector["weights_info"]["data_provenance"]


SINGLE = "--data.root=datasets/single_shapes"
MESSAGES = [
    (evaluate.main, ["{best}"], "classifier of pretrain.py"),
    (train.main, ["--model.weights={best}"], "--model.backbone_weights"),
    (train.main, ["--ckpt_path={last}"], "classifier of pretrain.py"),
    (detector_command, ["predict", "{best}", "tiny"], "classifier of pretrain.py"),
    (detector_command, ["export", "{best}"], "classifier of pretrain.py"),
    (detector_command, ["summary", "{best}"], "classifier of pretrain.py"),
    (pretrain.main, ["--ckpt_path={detector}"], "is the checkpoint of a detector; resume it with python train.py"),
    (pretrain.main, ["--ckpt_path=lost.ckpt"], "lost.ckpt: no such file"),
    (pretrain.main, ["--ckpt_path=tiny/annotations/val.json"], "val.json"),
    (pretrain.main, ["--data.root=tiny"], "is a detection set, as annotations/train.json shows"),
    (train.main, [SINGLE], "pretrain.py --data.root datasets/single_shapes"),
    (pretrain.main, ["--data.root=lost"], "lost does not exist"),
    (pretrain.main, ["--model.variant=yolo27_n"], "unknown variant 'yolo27_n'"),
    (pretrain.main, ["--model.overrides={dynamic: {where: neck-bottlenecks}}"], "a classifier has no neck"),
    (pretrain.main, ["--model.drop_path=0.1"], "our backbone has no stochastic depth"),
    (pretrain.main, [SINGLE, "--data.batch_size=1", "--data.image_size=32"], "data.batch_size is 1; a BatchNorm of"),
    (pretrain.main, [SINGLE, "--evaluation.num_mistakes=-1"], "num_mistakes of the evaluation is -1"),
    (pretrain.main, ["{resumed}", "--model.variant=yolo26_n"], "variant: dyn_n in the checkpoint, yolo26_n here"),
    (pretrain.main, ["{resumed}", "--model.layer_decay=0.5"], "layer_decay: 1.0 in the checkpoint, 0.5 here"),
    (pretrain.main, ["{resumed}", "--model.optimizer=sgd"], "optimizer: adamw in the checkpoint, sgd here"),
    (pretrain.main, ["{resumed}", "--auto_batch_size=0.8"], "--auto_batch_size is for new runs"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("program", "words", "message"), MESSAGES, ids=[" ".join(row[1]) for row in MESSAGES])
def test_wrong_uses_name_what_to_do(run: Path, program: Callable[[list[str]], Any], words: list[str], message: str) -> None:
    files = {"{best}": run / "best.ckpt", "{last}": run / "last.ckpt", "{detector}": "runs/dyn_n/last.ckpt"}
    for name, path in files.items():
        words = [word.replace(name, str(path)) for word in words]
    if words[0] == "{resumed}":
        words = ["--config", str(run / "config.yaml"), f"--ckpt_path={run / 'last.ckpt'}", *words[1:]]
    before = set(Path("runs").iterdir())
    with pytest.raises(SystemExit) as stop:
        program(words)
    assert message in str(stop.value)
    assert set(Path("runs").iterdir()) == before


@pytest.mark.parametrize(("parser", "program"), [(ParsedTraining, TRAIN), (ParsedPretraining, PRETRAIN)])
def test_settings_of_the_other_program_are_named_with_it(
    parser: type, program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, other_parser = (PRETRAIN, ParsedPretraining) if program is TRAIN else (TRAIN, ParsedTraining)
    names, others = (option_names(some([]).parser) for some in (parser, other_parser))
    alone = {name.removeprefix("--") for name in set(names) - set(others)}
    assert set(program.settings) == {n for n in alone if not any(n.startswith(f"{o}.") for o in alone)}, (
        "a new one is missing"
    )

    (tmp_path / "other.yaml").write_text(yaml.safe_dump(nested(dict.fromkeys(other.settings))))
    for words in (["--config", str(tmp_path / "other.yaml")], [f"--{other.settings[-1]}=1"]):
        with pytest.raises(SystemExit):
            parser(words)
        error = capsys.readouterr().err
        assert f"is a setting of {other.name}, which {other.purpose}; {program.name} {program.purpose}" in error
        assert ("other.yaml" in error) == (words[0] == "--config")


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings by dotted names as a configuration file has them."""
    content: dict[str, Any] = {}
    for name, value in settings.items():
        *groups, last = name.split(".")
        section = content
        for group in groups:
            section = section.setdefault(group, {})
        section[last] = value
    return content


@pytest.mark.parametrize(("parser", "base"), [(ParsedTraining, "pretrain.yaml"), (ParsedPretraining, "base.yaml")])
def test_the_base_file_of_the_other_program_is_refused(parser: type, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser(["--config", str(CONFIGS / base)])
    assert f"{base}: " in (error := capsys.readouterr().err)
    assert " is a setting of " in error


MODEL = {  # settings of the module, with values that differ from their defaults
    **{"variant": "yolo26_n", "overrides": {"width": 0.125}, "optimizer": "sgd", "lr": 0.3, "final_lr_ratio": 0.2},
    **{"weight_decay": 0.4, "momentum": 0.5, "warmup_epochs": 0.5, "nominal_batch": 7, "layer_decay": 0.6},
    **{"label_smoothing": 0.2, "dropout": 0.3, "clip_norm": 2.0, "channels_last": False, "freeze": ["backbone.stem"]},
}
DATA = {
    **{"root": "datasets/single_shapes", "image_size": [32, 64], "batch_size": 3, "val_batch_size": 5, "num_workers": 0},
    **{"license": "CC0-1.0", "provenance": "drawn", "sixteen_bit_range": [0, 4095]},
}


@pytest.mark.filterwarnings("ignore")
def test_every_setting_reaches_what_it_sets(run: Path) -> None:
    settings = nested({"model": MODEL, "data": DATA, "ema": {"decay": 0.5, "tau": 7}, "guard": {"max_skips": 3}})
    settings |= {"evaluation": {"num_confusions": 4, "num_mistakes": 2, "write": False}, "seed_everything": 5}
    settings["data"]["augment"] = {"flip": 0.1, "erasing": 0.2, "mixup": 0.3, "auto_augment": None}
    settings["data"]["val"] = None
    settings |= {"monitor": "val/top5", "monitor_mode": "min", "patience": 4}
    settings["trainer"] = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": None}
    Path("all.yaml").write_text(yaml.safe_dump(settings))
    cli = PretrainCLI(ImageFolderDataModule, ["--config", "all.yaml"])
    linked = {"class_names": CLASSES, "image_size": [32, 64], "sixteen_bit_range": [0, 4095]}
    expected = MODEL | linked | {"data_license": "CC0-1.0", "data_provenance": "drawn"}
    assert {name: cli.model.hparams[name] for name in expected} == expected
    data = cli.datamodule
    assert (data.size, data.batch_size, data.val_batch_size, data.seed) == ((32, 64), 3, 5, 5)
    assert data.augment == ClassAugmentation(flip=0.1, erasing=0.2, mixup=0.3, auto_augment=None)
    callbacks = {type(callback): callback for callback in cli.trainer.callbacks}
    assert (callbacks[RampedEMA].decay, callbacks[RampedEMA].tau, callbacks[NonFiniteGuard].max_skips) == (0.5, 7, 3)
    assert vars(callbacks[ClassEvaluation]) == vars(ClassEvaluation(num_confusions=4, num_mistakes=2, write=False))
    assert cli.run_dir == Path("runs/pretrain_yolo26_n")
    assert callbacks[SaveOnSignal].path == cli.run_dir / "last.ckpt"
    best, last = cli.trainer.checkpoint_callbacks
    assert (best.monitor, best.mode, last.monitor) == ("val/top5", "min", None)
    patience = callbacks[Patience]
    assert (patience.patience, patience.monitor, patience.sign) == (4, "val/top5", -1)
    assert " ".join(type(callback).__name__ for callback in cli.trainer.callbacks) == (
        "RampedEMA ClassEvaluation NonFiniteGuard DataWait EpochLog TimeEstimate Patience RoutingLog SaveOnSignal "
        "ModelCheckpoint ModelCheckpoint"
    )
    assert "docs/pretraining.md" in cli.faster_data
    assert "data.batch_size 3 (a device) at data.image_size (32, 64) in 32-true" in cli.memory_advice()
    cli._write_config_and_record()
    resumed = cli.parser.parse_args(["--config", str(cli.run_dir / "config.yaml")])
    assert resumed.data.val is resumed.data.augment.auto_augment is resumed.trainer.log_every_n_steps is None  # as given


class PlannedPretraining(ParsedPretraining):
    """Parse the configuration, and choose the network and the folder of the run."""

    before_instantiate_classes = PretrainCLI.before_instantiate_classes


def test_a_slurm_job_that_is_queued_again_resumes_its_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM starts the same command again. Another job begins a new run."""
    record = json.loads((run / "run.json").read_text())
    record["environment"]["SLURM_JOB_ID"] = "4242"
    (run / "run.json").write_text(json.dumps(record))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    best, last = str(run / "best.ckpt"), str(run / "last.ckpt")
    for job, expected in (("4242", (last, "pretrain_dyn_n", None)), ("4243", (None, "pretrain_dyn_n-2", best))):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        cli = PlannedPretraining([f"--model.weights={best}"])
        assert (cli.config["ckpt_path"], cli.run_dir.name, cli.config["model"]["weights"]) == expected


def test_the_command_that_resumes_names_the_program(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = SimpleNamespace(checkpoint=run / "last.ckpt")
    with caplog.at_level("INFO"):
        PretrainCLI._log_resume_command(SimpleNamespace(run_dir=run, program=PretrainCLI.program), stop)
    assert f"python pretrain.py --config {run / 'config-2.yaml'} --ckpt_path {run / 'last.ckpt'}" in caplog.text
