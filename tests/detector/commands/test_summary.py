"""``python -m detector summary``."""

from pathlib import Path

import pytest
import yaml

from detector import build_detector
from detector.__main__ import main
from detector.commands import summary
from detector.report import stages
from detector.weights import WeightsInfo, save_weights
from tests.resuming import TINY


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "RUNS", 1)
    monkeypatch.setattr(stages, "WARM_UP", 0)
    monkeypatch.chdir(tmp_path)


def test_a_configuration_is_summarized_as_it_would_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "save_plot", lambda plot, folder: None)  # takes a second
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": {"variant": "yolo26_n", "overrides": TINY, "lr": 0.1}}))
    main(["summary", "mine.yaml", "--image_size", "64", "96", "--num_classes", "5"])
    printed = capsys.readouterr().out
    parameters = sum(p.numel() for p in build_detector("yolo26_n", 5, **TINY).parameters())
    assert f"{parameters:,}" in next(line for line in printed.splitlines() if line.startswith("total"))
    assert "96 x 64 px" in printed
    assert f"figure: {Path('runs/summary/summary_mine.png')}" in printed


def test_a_checkpoint_has_its_own_size_and_classes_and_its_figure_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    info = WeightsInfo("yolo26_n", class_names=["a", "b"], overrides=dict(TINY), image_size=(32, 64))
    save_weights(tmp_path / "run/best.safetensors", build_detector("yolo26_n", 2, **TINY).state_dict(), info)
    main(["summary", "run/best.safetensors"])
    assert "64 x 32 px" in capsys.readouterr().out
    assert (tmp_path / "run/figures/summary_best.svg").is_file()
    with pytest.raises(SystemExit, match=r"--num_classes is for variants and configurations"):
        main(["summary", "run/best.safetensors", "--num_classes", "3"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["yolo26n"], "unknown variant 'yolo26n'; did you mean yolo26_n"),
        (["runs/lost.ckpt"], r"runs/lost\.ckpt: no such file"),
        (["lost.yaml"], r"lost\.yaml: no such file"),
        (["dyn_n", "--image_size", "100"], "multiples of 32"),
        (["dyn_n", "--num_classes", "0"], "--num_classes is 0"),
    ],
)
def test_mistakes_are_one_message(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["summary", *words])
