"""train.py and evaluate.py as users run them: train, look, resume, evaluate, and wrong configurations."""

import csv
import json
import os
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save_file

import evaluate
import train
from data import CocoDataModule
from detector import DetectorModule, build_detector, load_detector
from detector.__main__ import main as detector_command
from detector.callbacks import Patience, PredictionSheet
from detector.commands import run_cli
from detector.commands.train_cli import TrainCLI
from detector.evaluation import evaluate as evaluate_detections
from detector.evaluation import load_ground_truth, read_predictions
from detector.network.classifier import build_classifier
from detector.network.head import BRANCHES
from detector.report import speed, stages
from detector.training import batch_size
from detector.training.module import PRETRAINED_LR_RATIO
from tests.data.voc_files import write_voc
from tests.detector.reference_files import some_weights, write_checkpoint
from tests.docs_commands import ParsedEvaluation, ParsedPretraining, ParsedTraining

CONFIGS = Path(train.__file__).parent / "configs"


def offline_ap(ground_truth: Path, predictions: Path) -> float:
    """Return the AP of a predictions file, by pycocotools alone."""
    coco = COCO(ground_truth)
    coco_eval = COCOeval(coco, coco.loadRes(str(predictions)), "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval.stats[0]


def best_score(checkpoint: dict[str, Any]) -> torch.Tensor:
    """Return the AP of the best epoch from a checkpoint."""
    (score,) = [state["best_model_score"] for name, state in checkpoint["callbacks"].items() if "val/AP" in name]
    return score


def best_f1_thresholds(folder: Path) -> dict[str, float | None]:
    """Return the score threshold of the best F1 of each branch, from the files of an evaluation."""
    truth, names = load_ground_truth(folder / "ground_truth.json"), ("predictions.json", "predictions_one2many.json")
    points = [evaluate_detections(truth, read_predictions(folder / name, truth)).best_f1 for name in names]
    return {branch: point and point.threshold for branch, point in zip(BRANCHES, points)}


def test_train_evaluate_and_resume(
    arguments: list[str],
    tiny_coco: Path,
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")

    def no_network(*_: Any) -> None:
        raise AssertionError("the run has opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    for module in (speed, stages):  # of the report: times are measured once
        monkeypatch.setattr(module, "RUNS", 1)
    train.main(arguments)
    run = Path("runs/dyn_n")
    for name in (
        "best.ckpt",
        "last.ckpt",
        "config.yaml",
        "run.json",
        "ground_truth.json",
        "metrics.csv",
        "train.log",
        "val_predictions.jpg",
        "predictions.json",
    ):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").glob("events*"))
    assert f"folder of this run: {run}" in caplog.messages
    done, image = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "best AP" in done
    assert all(f" at the score {threshold})" in done for threshold in best_f1_thresholds(run).values() if threshold)
    assert str(run) in done
    assert image == f"look at {run / 'val_predictions.jpg'}"

    detector_command(["report", str(run)])
    page = (run / "report.html").read_text()
    assert page.count("could not be shown") == 0
    final = [row["val/AP"] for row in csv.DictReader((run / "metrics.csv").open()) if row["val/AP"]][-1]
    assert f"<b>{float(final):.3f}</b>AP</div>" in page
    assert all(f'id="{part}"' in page for part in ("routing", "network", "speed"))

    head, *lines = [line.split() for line in (run / "train.log").read_text().splitlines()]
    rates = [float(row["train/lr"]) for row in csv.DictReader((run / "metrics.csv").open()) if row["train/lr"]]
    assert rates == pytest.approx([float(line[head.index("lr")]) for line in lines], rel=0.005)
    assert rates[0] != pytest.approx(rates[1], rel=0.005)

    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["class_names"] == ["red", "green", "blue"]
    assert checkpoint["hyper_parameters"]["category_ids"] == [7, 22, 90]
    best = torch.load(run / "best.ckpt", weights_only=True)
    score = best_score(best)
    assert best_score(checkpoint) == score  # otherwise a resumed run would not know the best epoch
    assert checkpoint["weights_info"]["best_f1_thresholds"] == best_f1_thresholds(run)

    # A run's config.yaml has its run_dir: an evaluation must not write there. The network is the one of the checkpoint,
    # whatever the configuration says.
    evaluate.main([str(run / "best.ckpt"), *arguments, "--run_dir", str(run), "--model.variant", "yolo26_n"])
    assert "is a dyn_n: model.variant yolo26_n is not used" in caplog.text
    assert yaml.safe_load((run / "eval_val" / "evaluation.yaml").read_text())["model"]["variant"] == "dyn_n"
    recorded = yaml.safe_load((run / "eval_val" / "evaluation.yaml").read_text())
    assert (recorded["eval"], recorded["data"]["image_size"]) == (str((run / "best.ckpt").resolve()), 64)
    detector_command(["report", str(run / "eval_val"), "--no_speed"])
    assert "<h1>dyn_n: evaluation of best.ckpt on the val split</h1>" in (run / "eval_val" / "report.html").read_text()
    predictions = run / "eval_val" / "predictions.json"
    rows = json.loads(predictions.read_text())
    assert {row["image_id"] for row in rows} <= {201, 202, 203, 204, 205}
    assert {row["category_id"] for row in rows} <= {7, 22, 90}
    assert best["weights_info"]["best_f1_thresholds"] == best_f1_thresholds(run / "eval_val")  # each has its own
    assert offline_ap(tiny_coco / "annotations" / "val.json", predictions) == pytest.approx(score.item(), abs=1e-7)
    assert score > 0

    for name in ("class_names", "category_ids"):
        best["hyper_parameters"][name].reverse()
    torch.save(best, "other_order.ckpt")
    with pytest.raises(SystemExit, match=r"knows the classes .*'blue'.* but the data have"):
        evaluate.main(["other_order.ckpt", *arguments])

    best["hyper_parameters"] |= {"class_names": best["hyper_parameters"]["class_names"][::-1], "category_ids": [0, 1, 2]}
    torch.save(best, "other_ids.ckpt")
    with pytest.raises(SystemExit, match=r"only the ids differ; evaluate on annotations with the ids of the training"):
        evaluate.main(["other_ids.ckpt", *arguments])

    record = json.loads((run / "run.json").read_text())
    assert record["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert set(record["git"]) == {"commit", "branch", "changed"}
    assert record["command"] == shlex.join([sys.executable, *sys.argv])
    assert not any("TOKEN" in name or "KEY" in name for name in record["environment"])

    train.main([*arguments, "--ckpt_path", str(run / "last.ckpt"), "--trainer.max_epochs", "3", "--model.lr", "0"])
    assert "trainer.max_epochs: 2 before, 3 now" in caplog.text
    assert "model.lr: 0.02 before, 0.0 now" in caplog.text
    assert "data.root" not in caplog.text.partition("settings that differ")[2]  # settings that are the same are not listed
    last = torch.load(run / "last.ckpt", weights_only=True)
    assert {group["base_lr"] for group in last["optimizer_states"][0]["param_groups"]} == {0.0}  # of the resumed start
    assert best_score(last) == best_score(torch.load(run / "best.ckpt", weights_only=True)) >= score
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 2
    assert (run / "config-2.yaml").is_file()
    assert (run / "metrics.csv").is_file()
    assert (run / "resumed-2" / "metrics.csv").is_file()
    epochs = [line.split()[0] for line in (run / "train.log").read_text().splitlines()]
    assert epochs == ["epoch", "1/2", "2/2", "epoch", "3/3"]
    train.main([*arguments, "--ckpt_path", str(run / "last.ckpt"), "--trainer.max_epochs", "3"])
    assert "is from the end of a run of 3 epochs: nothing is left to train" in caplog.text

    for extra, message in (
        (["--model.variant", "yolo26_n"], "variant: dyn_n in the checkpoint, yolo26_n here"),
        (["--model.optimizer", "sgd"], "optimizer: musgd in the checkpoint, sgd here"),
    ):
        with pytest.raises(SystemExit, match=message):
            train.main([*arguments, "--ckpt_path", str(run / "last.ckpt"), *extra])


def test_a_used_folder_is_never_overwritten(arguments: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Of a run without validation, as ``data.val_split`` is 0."""
    without = ["--data.val_annotations", "null", "--data.val_images", "null", "--data.val_split", "0"]
    with caplog.at_level("INFO"):
        train.main([*arguments, "--trainer.max_epochs", "1", *without, "--run_dir", "mine"])
    assert "there is no validation: no AP and no best.ckpt; the result is last.ckpt" in caplog.text
    assert not Path("mine/best.ckpt").exists()
    config = yaml.safe_load(Path("mine/config.yaml").read_text())
    assert (config["data"]["val_split"], config["trainer"]["limit_val_batches"]) == (0, 0)
    with pytest.raises(SystemExit, match=r"the data have no validation set, and data\.val_split is 0: set data\.val_anno"):
        evaluate.main(["mine/last.ckpt", "--config", "mine/config.yaml"])
    before = {path.name: path.stat().st_mtime_ns for path in Path("mine").iterdir()}
    train.main(["--config", "mine/config.yaml"])  # a resolved configuration can start another run
    assert {path.name: path.stat().st_mtime_ns for path in Path("mine").iterdir()} == before
    assert Path("mine-2/last.ckpt").is_file()


def test_a_slurm_job_that_is_queued_again_resumes_its_run(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SLURM sends SIGUSR1 before the time limit, and then starts the same command in the same folder again."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    for name, value in {"JOB_ID": "4242", "JOB_NAME": "train", "NTASKS": "1", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    kill = {"class_path": "tests.resuming.Kill", "init_args": {"epoch": 0, "batch": 1, "signum": int(signal.SIGUSR1)}}
    command = [*arguments, "--data.batch_size", "2", "--model.nominal_batch", "2", "--trainer.max_epochs", "1"]
    command += ["--trainer.callbacks", json.dumps([kill]), "--trainer.limit_val_batches", "0"]
    with pytest.raises(SystemExit) as stop:
        train.main(command)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert (tmp_path / "calls").read_text() == "requeue 4242\n"
    last = Path("runs/dyn_n/last.ckpt")
    assert torch.load(last, weights_only=True)["CocoDataModule"]["samples"] == 4

    shutil.copytree("runs/dyn_n", "runs/dyn_n-2")  # of the same job, by another command
    record = json.loads(Path("runs/dyn_n-2/run.json").read_text())
    Path("runs/dyn_n-2/run.json").write_text(json.dumps(record | {"command": "python train.py --other"}))
    shutil.copytree("runs/dyn_n", "runs/dyn_n10")  # of another name
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with caplog.at_level("INFO"):
        train.main(command)
    assert "SLURM has started job 4242 again" in caplog.text
    assert "nothing is left to train" not in caplog.text  # the run was stopped in its last epoch
    assert {path.name for path in Path("runs").iterdir()} == {"dyn_n", "dyn_n-2", "dyn_n10"}
    assert torch.load(last, weights_only=True)["global_step"] == 4
    line = Path("runs/dyn_n/train.log").read_text().splitlines()[-1].split()
    head = Path("runs/dyn_n/train.log").read_text().splitlines()[-2].split()
    assert 0 < float(line[head.index("train_s")]) < 60  # only of the part after the stop


def test_the_template_for_user_data_does_not_set_augmentation() -> None:
    configs = [f"--config={CONFIGS / name}" for name in ("finetune.yaml", "data/template.yaml")]
    augment = ParsedTraining(configs).config["data"]["augment"]
    assert (augment["mosaic"], augment["close_mosaic"]) == (0.5, 5)


def test_a_resumed_run_never_writes_into_the_folder_of_another(arguments: list[str]) -> None:
    """Neither to resume nor to evaluate, whatever run_dir an older config.yaml has."""
    quick = ["--trainer.limit_val_batches", "0", "--run_dir", "mine", "--trainer.max_epochs"]
    train.main([*arguments, *quick, "1"])
    shutil.copytree("mine", "mine-2")  # its config.yaml has the run_dir of the other
    before = {path.name: path.stat().st_mtime_ns for path in Path("mine").iterdir()}
    train.main([*arguments, *quick, "2", "--ckpt_path", "mine-2/last.ckpt"])
    evaluate.main(["mine-2/last.ckpt", *arguments, "--run_dir", "mine"])
    assert {path.name: path.stat().st_mtime_ns for path in Path("mine").iterdir()} == before
    assert (Path("mine-2") / "eval_val").is_dir()
    assert yaml.safe_load(Path("mine-2/config-2.yaml").read_text())["run_dir"] == "mine-2"


def test_out_of_memory_exits_with_the_settings_and_advice(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(DetectorModule, "training_step", step)
    with pytest.raises(SystemExit, match=r"(?s)data\.batch_size 4 .*data\.image_size 64 .*Halve.*2\.00 GiB"):
        train.main([*arguments, "--trainer.num_sanity_val_steps", "0"])


def test_an_automatic_batch_size_is_measured_and_recorded(
    tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(batch_size, "cuda_batch_size", lambda module, *arguments: calls.append(arguments) or 3)
    data = [f"--data.{name}={value}" for name, value in tiny_arguments.items()]
    options = ["--model.variant=yolo26_n", "--trainer.accelerator=cpu", "--auto_batch_size=0.7", *data]
    cli = TrainCLI(
        CocoDataModule, [*options, f"--run_dir={tmp_path / 'a'}", "--data.image_size=128", "--data.augment.multi_scale=0.5"]
    )
    assert calls == [((192, 192), "32-true", torch.device("cpu"), 0.7)]  # the largest size that multi_scale gives
    assert (cli.datamodule.batch_size, cli.config["data"]["batch_size"], cli.config["auto_batch_size"]) == (3, 3, None)
    for wrong, message in (("--auto_batch_size=1.5", "above 0 and below 1"), ("--trainer.devices=2", "works on one device")):
        with pytest.raises(SystemExit, match=message):
            train.main([*options, f"--run_dir={tmp_path / 'b'}", wrong])


def test_callbacks_are_called_in_the_documented_order(tiny_arguments: dict[str, Any], tmp_path: Path) -> None:
    """The user's own, then the list in TrainingCLI.callbacks."""
    data = [f"--data.{name}={value}" for name, value in tiny_arguments.items()]
    options = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=true", "--trainer.enable_model_summary=false"]
    own = "--trainer.callbacks+=lightning.pytorch.callbacks.Timer"
    options += ["--patience=7", "--monitor=val/one2one/l1"]
    options += ["--sheet.num_images=3", "--sheet.score_threshold=0.4", "--sheet.branch=one2many"]
    cli = TrainCLI(CocoDataModule, ["--model.variant=yolo26_n", f"--run_dir={tmp_path / 'a'}", own, *options, *data])
    assert " ".join(type(callback).__name__ for callback in cli.trainer.callbacks) == (
        "Timer RampedEMA CocoEvaluation NonFiniteGuard DataWait EpochLog TimeEstimate Patience PredictionSheet "
        "RoutingLog SaveOnSignal RunProgressBar ModelCheckpoint ModelCheckpoint"
    )
    assert cli.trainer.progress_bar_callback.refresh_rate == 5  # 20 on a GPU
    drawn = next(callback for callback in cli.trainer.callbacks if isinstance(callback, PredictionSheet))
    assert (drawn.num_images, drawn.score_threshold, drawn.branch) == (3, 0.4, "one2many")
    early_end = next(callback for callback in cli.trainer.callbacks if isinstance(callback, Patience))
    assert (early_end.patience, early_end.monitor, early_end.sign) == (7, "val/one2one/l1", -1)
    checkpoints = [(callback.monitor, callback.mode) for callback in cli.trainer.checkpoint_callbacks]
    assert checkpoints == [("val/one2one/l1", "min"), (None, "min")]
    assert {"val/AP75", "val/one2many/AP_small", "val/AP_class/red", "val/total"} <= set(cli.monitored_names())


def test_batch_statistics_are_shared_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [run_cli.uses_cuda(name) for name in ("auto", "gpu", "cuda", "cpu", "mps")] == [True, True, True, False, False]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not run_cli.uses_cuda("auto")
    config = ParsedTraining(["--config", str(CONFIGS / "dyn_n.yaml")]).config
    assert config["trainer"]["sync_batchnorm"] is True  # the device is not known yet


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model.varient", "dyn_n"], "varient"),
        (["--model.lr", "fast"], "lr"),
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--data.augment.mosaik", "1"], "mosaik"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_keys_and_types_are_refused_by_name(
    arguments: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        train.main([*arguments, *extra])
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data.root", "elsewhere"], "elsewhere"),
        (["--data.val_annotations", "annotations/vall.json"], "vall.json"),
        (["--ckpt_path", "lost.ckpt"], "lost.ckpt: no such file"),
        (["--ckpt_path", "tiny.yaml"], "tiny.yaml: not a whole file of torch.save"),
        (["--model.weights", "lost.pt"], "lost.pt: no such file"),
        (["--model.freeze", '["backbon"]'], "'backbon' names no part"),
        (["--model.lr_ratios", '{"neck": -1}'], "a ratio must be above 0"),
        (["--model.variant", "yolo27_n"], "unknown variant 'yolo27_n'"),
        (["--model.overrides", '{"widht": 1}'], "widht"),
        (["--model.overrides.dynamic.kind", "residul"], "unknown kind 'residul'; did you mean 'residual'?"),
        (["--data.image_size", "60"], "multiples of 32"),
        (["--trainer.devices", "0"], "devices='0'"),
        (["--patience", "0"], "patience is 0; expected a whole number, 1 or more"),
        (["--monitor", "val/AP55"], "unknown number of the validation for monitor: 'val/AP55'; did you mean .*val/AP50"),
        (
            ["--patience=3", "--trainer.limit_val_batches=0"],
            "patience needs a validation, but trainer.limit_val_batches is 0",
        ),
        (
            ["--monitor=val/AP", "--data.val_annotations=null", "--data.val_images=null", "--data.val_split=0"],
            "monitor needs a validation, but data.val_split is 0",
        ),
        (
            ["--monitor=val/AP", "--trainer.check_val_every_n_epoch=5"],
            r"monitor needs a validation; .*check_val_every_n_epoch 5\), but the training has .*max_epochs 2\): change",
        ),
        (
            ["--data.batch_size=7", "--data.image_size=32"],
            r"batch_size is 7, and the last batch of an epoch has one image \(8 samples in all\); a BatchNorm .*32 x 32 px",
        ),
        (["--model.lr", "-1"], "lr is -1.0; expected a number, 0 or more"),
    ],
)
def test_bad_input_exits_with_one_clear_line(arguments: list[str], extra: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        train.main([*arguments, *extra])
    assert not Path("runs").exists()


@pytest.mark.parametrize("door", [ParsedTraining, ParsedEvaluation])
def test_a_key_given_twice_is_refused_at_every_door(door: type, tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("model:\n  lr: 0.1\n  lr: 0.2\n")
    for words in (["--config", str(tmp_path / "twice.yaml")], [f"--config={tmp_path / 'twice.yaml'}"]):
        with pytest.raises(SystemExit, match=r"twice\.yaml: the key 'lr' is given twice, in lines 2 and 3; keep one"):
            door(words)
    with pytest.raises(SystemExit, match="the key 'mosaic' is given twice"):
        door(["--data.augment", "{mosaic: 1, mosaic: 0}"])


def test_weights_are_not_resumed(arguments: list[str], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "official.pt", some_weights(), ["red", "green", "blue"])
    with pytest.raises(SystemExit, match=r"official\.pt is a file of the public reference.*--model\.weights"):
        train.main([*arguments, "--ckpt_path", str(path)])


def test_missing_coco_exits_with_the_download_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=r"(?s)datasets/coco.*annotations_trainval2017\.zip.*http://images\.cocodataset\.org"
    ):
        train.main(["--config", str(CONFIGS / "dyn_n.yaml")])


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_configuration_parses_and_builds(path: Path) -> None:
    is_pretraining = path.stem.startswith("pretrain")
    config = (ParsedPretraining if is_pretraining else ParsedTraining)(["--config", str(path)]).config
    model = config["model"]
    backbone = {"backbone": model["backbone"]} if model["backbone"] else {}
    build = build_classifier if is_pretraining else build_detector
    with torch.device("meta"):
        build(model["variant"] or "dyn_n", 80, **(model["overrides"] or {}) | backbone)
    has_bf16 = path.stem in ("bf16", "pretrain_large")
    assert config["trainer"]["precision"] == ("bf16-mixed" if has_bf16 else "32-true")
    if path.parent == CONFIGS and path.stem.startswith(("dyn_", "yolo26_")):
        assert path.stem.removesuffix("_10epochs") == config["model"]["variant"]


def test_the_published_experiment() -> None:
    config = ParsedTraining(["--config", str(CONFIGS / "dyn_n_10epochs.yaml")]).config
    assert (config["trainer"]["max_epochs"], config["data"]["augment"]["close_mosaic"]) == (10, 10)
    assert (config["data"]["image_size"], config["data"]["batch_size"], config["data"]["num_workers"]) == (640, 8, 0)
    assert (config["model"]["optimizer"], config["data"]["single_cls"]) == ("musgd", False)


def test_a_pretrained_backbone(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is needed once: the run is resumed without a word about its backbone, evaluated and converted without it."""
    weights = tmp_path / "imagenet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    backbone = ["--model.backbone", "timm/test_resnet.r160_in1k", "--model.backbone_weights", str(weights)]
    quick = ["--model.variant", "yolo26_n", "--model.optimizer", "adamw", "--trainer.max_epochs"]
    train.main([*arguments, *quick, "1", *backbone])
    weights.unlink()
    run = Path("runs/yolo26_n")
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["backbone_lr_ratio"] == PRETRAINED_LR_RATIO
    first = torch.load(run / "last.ckpt", weights_only=True)
    assert first["weights_info"]["license"] == "apache-2.0"
    assert torch.equal(first["state_dict"]["model.backbone.mean"].flatten(), torch.full((3,), 0.5))

    train.main([*arguments, *quick, "2", "--ckpt_path", str(run / "last.ckpt")])
    last = torch.load(run / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    settings = ("overrides", "backbone_lr_ratio")
    assert {name: last["hyper_parameters"][name] for name in settings} == {
        "overrides": {"width": 0.125, "depth": 0.33, "backbone": "timm/test_resnet.r160_in1k"},
        "backbone_lr_ratio": PRETRAINED_LR_RATIO,
    }  # fmt: skip
    with caplog.at_level("INFO"):
        evaluate.main([str(run / "last.ckpt"), *arguments, "--model.backbone", "timm/hgnetv2_b0"])
    assert "has the backbone timm/test_resnet.r160_in1k: model.backbone timm/hgnetv2_b0 is not used" in caplog.text
    capsys.readouterr()
    detector_command(["weights", str(run / "last.ckpt"), "out.safetensors"])
    out = capsys.readouterr().out
    assert "out.safetensors: yolo26_n, backbone timm/test_resnet.r160_in1k, 3 classes" in out
    assert "license: apache-2.0" in out
    evaluate.main(["out.safetensors", *arguments, "--trainer.limit_val_batches", "1", "--evaluation.predictions", "false"])
    expected = load_detector(run / "last.ckpt").model.state_dict()
    assert all(torch.equal(value, expected[n]) for n, value in load_detector("out.safetensors").model.state_dict().items())


def test_a_voc_folder_without_split_trains_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml has the share that was held out, and reads the same validation images again."""
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path / "voc", 6)
    settings = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "model": {"variant": "yolo26_n", "overrides": {"width": 0.125, "depth": 0.33}},
        "data": {"image_size": 64, "batch_size": 4, "num_workers": 0},
    }
    Path("small.yaml").write_text(yaml.safe_dump(settings))
    train.main(["--config", "small.yaml", "--data.root", "voc", "--run_dir", "run"])
    data = yaml.safe_load(Path("run/config.yaml").read_text())["data"]
    assert data["val_split"] == 0.2
    truth = json.loads(Path("run/ground_truth.json").read_text())
    again = CocoDataModule("voc", image_size=64, val_split=data["val_split"]).ground_truth("val")
    assert 1 <= len(truth["images"]) <= 3
    assert truth["images"] == again["images"]
    assert ParsedTraining(["--config", "run/config.yaml"]).config["data"]["val_split"] == 0.2
