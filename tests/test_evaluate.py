"""evaluate.py, and the options of train.py that it has replaced. Evaluations of whole runs are in tests/test_train.py."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import evaluate
import train
from detector import load_detector
from detector.commands.evaluate_cli import EvaluateCLI
from tests.detector.reference_files import some_weights, write_checkpoint


def test_weights_of_the_reference_are_evaluated(arguments: list[str], tmp_path: Path) -> None:
    """With classes in another order. The detections are those of ``load_detector`` with the same weights."""
    path = write_checkpoint(tmp_path / "official.pt", some_weights(), ["blue", "red", "green"])
    model = ["--model.variant", "yolo26_n", "--model.overrides", "null"]
    evaluate.main([str(path), *arguments, *model])
    rows = json.loads((tmp_path / "eval_val_official" / "predictions.json").read_text())
    best = max((row for row in rows if row["image_id"] == 201), key=lambda row: row["score"])
    predictor = load_detector(path, image_size=64)
    (detections,) = predictor(tmp_path / "tiny/images/val/image_0.png", score_threshold=0.0, max_detections=1)
    assert detections.scores.item() == pytest.approx(best["score"], abs=1e-4)
    assert {7: "red", 22: "green", 90: "blue"}[best["category_id"]] == detections.names[0]
    other = write_checkpoint(tmp_path / "other.pt", some_weights(), ["blue", "red", "gray"])
    with pytest.raises(SystemExit, match=r"knows the classes .*'gray'.* but the data have"):
        evaluate.main([str(other), *arguments, *model])


def test_a_split_without_annotations_is_refused(arguments: list[str], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "official.pt", some_weights(), ["red", "green", "blue"])
    with pytest.raises(SystemExit, match=r"no split 'test'.*data\.test_annotations"):
        evaluate.main([str(path), *arguments, "--model.overrides", "null", "--split", "test"])
    assert not (tmp_path / "eval_test_official").exists()


@pytest.mark.parametrize(
    ("arguments_of_evaluate", "message"),
    [
        (["lost.ckpt"], "lost.ckpt: no such file"),
        (["tiny.yaml"], "tiny.yaml: not a whole file of torch.save"),
        ([], "checkpoint"),
        (["tiny.yaml", "--split", "train"], "split"),
    ],
)
def test_wrong_arguments_exit_with_a_message(
    arguments: list[str], arguments_of_evaluate: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate.main([*arguments_of_evaluate, *arguments])
    assert message in f"{stop.value} {capsys.readouterr().err}"


@pytest.mark.parametrize("option", [["--eval", "my best.ckpt"], ["--eval=my best.ckpt"]])
def test_train_names_the_command_that_evaluates(arguments: list[str], option: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments, *option, "--split", "test", "--data.image_size", "[64, 96]"])
    command = "python evaluate.py 'my best.ckpt' --config tiny.yaml --split test --data.image_size '[64, 96]'"
    assert stop.value.code == f"error: train.py only trains; evaluate with\n    {command}"
    assert not Path("runs").exists()


def test_train_refuses_the_configuration_of_an_evaluation(arguments: list[str]) -> None:
    Path("evaluation.yaml").write_text(yaml.safe_dump({"eval": "/runs/best.ckpt", "split": "test"}))
    with pytest.raises(SystemExit, match=r"evaluate with\n *python evaluate.py /runs/best.ckpt .*--config evaluation.yaml"):
        train.main([*arguments, "--config", "evaluation.yaml"])


def test_each_program_takes_the_configurations_of_the_other_and_of_older_runs(
    arguments: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The config.yaml of runs before evaluate.py has ``split`` and may have ``eval``."""
    run = Path("runs/dyn_n")
    last = str(run / "last.ckpt")
    Path("older.yaml").write_text(yaml.safe_dump({"eval": None, "split": "val"}))
    quick = ["--trainer.limit_val_batches", "0", "--trainer.max_epochs"]
    train.main([*arguments, "--config", "older.yaml", *quick, "1"])
    config = run / "config.yaml"
    assert not {"eval", "split"} & yaml.safe_load(config.read_text()).keys()

    config.write_text(config.read_text() + "split: val\n")
    with caplog.at_level("INFO"):
        train.main(["--config", str(config), "--ckpt_path", last, *quick, "2"])
    assert "trainer.max_epochs: 1 before, 2 now" in caplog.text
    assert "split: val before" not in caplog.text

    # The checkpoint on the command line counts, not the ckpt_path of a training or the checkpoint of another evaluation.
    # Its limit of 0 batches is of the training. Earlier versions wrote the default overlap, also without tiles.
    evaluate.main([last, "--config", str(run / "config-2.yaml")])
    evaluation = run / "eval_val" / "evaluation.yaml"
    text = evaluation.read_text().replace("last.ckpt", "other.ckpt")
    assert "\noverlap: null\n" in text
    evaluation.write_text(text.replace("overlap: null", "overlap: 0.2"))
    evaluate.main([last, "--config", str(evaluation), "--auto_batch_size", "0.8", "--run_dir", "evaluated"])
    assert Path("evaluated/predictions.json").is_file()
    settings = yaml.safe_load(Path("evaluated/evaluation.yaml").read_text())
    assert settings["eval"] == str(Path(last).resolve())
    assert not {"ckpt_path", "auto_batch_size", "checkpoint"} & settings.keys()
    assert {"ema", "guard"} <= settings.keys()


def test_the_range_of_16_bit_images_is_that_of_the_training() -> None:
    for given, trained, expected in ((None, None, None), (None, (0, 4095), (0, 4095)), ((0, 4095), (0, 4095), (0, 4095))):
        cli = SimpleNamespace(config={"data": {"sixteen_bit_range": given}}, checkpoint="a.ckpt")
        EvaluateCLI._resolve_sixteen_bit_range(cli, trained)
        assert cli.config["data"]["sixteen_bit_range"] == expected
    for given, trained in (((0, 4095), None), ((0, 4095), (0, 1023))):
        cli = SimpleNamespace(config={"data": {"sixteen_bit_range": given}}, checkpoint="a.ckpt")
        with pytest.raises(ValueError, match=r"data\.sixteen_bit_range is \[0, 4095\], but a\.ckpt was trained with"):
            EvaluateCLI._resolve_sixteen_bit_range(cli, trained)


def test_without_data_the_configuration_of_the_training_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("best.ckpt", "config.yaml"):
        Path(name).touch()
    with pytest.raises(SystemExit, match=r"data to evaluate on are not given; .* in --config config\.yaml"):
        evaluate.main(["best.ckpt"])
