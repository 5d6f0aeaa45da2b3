"""The page about a pre-training."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detector.__main__ import main
from detector.report.classifier_advice import advice, learning_warning, next_commands
from detector.report.run_folder import read_run

CONFIG = """# lightning.pytorch==2.6.6
trainer: {max_epochs: 4, precision: 32-true}
model: {variant: dyn_n, lr: 0.002, label_smoothing: 0.1, warmup_epochs: 5.0, layer_decay: 1.0}
data: {root: somewhere, image_size: 32, batch_size: 128, license: CC0-1.0}
"""
METRICS = """epoch,step,train/lr,train/loss,val/top1,val/top5,val/loss,routing/a/expert0,routing/a/entropy
0,1,,,0.5,0.9,1.4,,
0,1,,,,,,0.6,0.97
0,1,0.01,1.5,,,,,
1,3,,,0.4,0.8,1.3,,
1,3,0.005,1.2,,,,,
"""
LOG = """epoch   top1  top5 left  loss val_loss      lr img/s train_s val_s
1/4    0.500 0.900   5s   1.5      1.4   0.010  40.0       2     1
2/4    0.400 0.800   5s   1.2      1.3   0.005  60.0       2     1
"""


def results(top1: float = 0.8, images: int = 400, **changes: Any) -> dict[str, Any]:
    """Results of two classes with as many images."""
    wrong = round((1 - top1) * images)
    confusion = {"class": "circle", "predicted": "square", "images": wrong, "share": 2 * wrong / images}
    mistake = {"image": "circle/1.png", "class": "circle", "predicted": "square", "score": 0.987, "class_score": None}
    return {
        **{"split": "val", "epoch": 2, "folder": None, "images_per_second": {"training": 50.5, "validation": 99.0}},
        **{"images": images, "top1": top1, "top5": 1.0, "top5_of": 2},
        "classes": [
            {"name": "circle", "images": images // 2, "top1": 2 * top1 - 1},
            {"name": "square", "images": images // 2, "top1": 1.0},
            {"name": "star", "images": 0, "top1": None},
        ],
        "confusions": [confusion | {"examples": ["circle/1.png", "circle/2.png"]}],
        "mistakes": [mistake, mistake | {"image": "circle/gone.png", "class_score": 0.01}],
        **changes,
    }


def make_run(folder: Path, content: dict[str, Any] | None, metrics: str = METRICS) -> Path:
    """Write a run as pretrain.py leaves it, without checkpoints, and the images of its mistakes beside it."""
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "metrics.csv").write_text(metrics)
    (folder / "train.log").write_text(LOG)
    (folder.parent / "images" / "circle").mkdir(parents=True)
    for number in (1, 2):
        pixels = np.full((20, 40, 3), 50 * number, np.uint8)
        cv2.imwrite(str(folder.parent / "images" / "circle" / f"{number}.png"), pixels)
    if content is not None:
        content = content | {"folder": str(folder.parent / "images")}
        (folder / "classification.json").write_text(json.dumps(content))
    return folder


def sentences(tmp_path: Path, content: dict[str, Any] | None, **settings: Any) -> str:
    return "\n".join(advice(read_run(make_run(tmp_path / "run", content, **settings))))


def test_the_page_has_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", results())
    main(["report", str(run)])
    page = (run / "report.html").read_text()
    assert "<h1>dyn_n: report of a pre-training</h1>" in page
    assert "<b>0.800</b>top-1</div>" in page
    assert "<b>1.000</b>top-2</div>" in page  # there are fewer than five classes
    for part in ("classes", "confusions", "images", "training", "routing", "speed", "config"):
        assert f'id="{part}"' in page, part
    for text in ("images per second, training", "50.5", "CC0-1.0", "square (80 images)", "label smoothing", "accuracy on"):
        assert text in page, text
    assert '<th scope="row">star</th>' not in page  # it has no images
    assert "circle taken for square. circle/1.png" in page  # of the confusion
    assert "circle (score not finite) taken for square (0.987). circle/1.png" in page
    assert "1 image could not be shown" in page.replace("\n", " ")
    assert page.count("data:image/jpeg") == 2
    assert (run / "figures" / "accuracy.svg").is_file()
    out = capsys.readouterr().out
    assert "The run has no checkpoint, so the network is not measured." in out
    assert "top-1 0.800" in out

    (tmp_path / "images").rename(tmp_path / "moved")
    main(["report", str(run), "--images", str(tmp_path / "moved")])
    assert (run / "report.html").read_text().count("data:image/jpeg") == 2


def test_a_run_without_validation_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", None)
    main(["report", str(run), "--no_speed"])
    assert "The run has no results" in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert 'id="training"' in page
    assert 'id="classes"' not in page


def test_options_about_detections_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", results())
    backend, truth = ["--backend", "ultrafast-pycocotools"], ["--ground_truth", str(run / "config.yaml")]
    for options in (["--score_threshold", "0.5"], truth, backend):
        with pytest.raises(SystemExit, match=f"{options[0]} is about detections"):
            main(["report", str(run), *options])


@pytest.mark.parametrize("broken", ["[]", "{", '{"top1": 1}'])
def test_a_broken_file_of_results_is_named(tmp_path: Path, broken: str) -> None:
    run = make_run(tmp_path / "run", results())
    (run / "classification.json").write_text(broken)
    with pytest.raises(SystemExit, match=r"classification\.json"):
        main(["report", str(run)])


def test_a_network_that_has_learned_nothing_gets_the_reasons_it_may_have(tmp_path: Path) -> None:
    text = sentences(tmp_path, results(top1=0.53))
    assert "has learned nothing yet: its top-1 of 0.530 on 400 images is not clearly above" in text
    assert "--model.warmup_epochs 0.4" in text
    assert "a smaller --data.batch_size (now 128)" in text
    assert "(so far 4 optimizer steps in 2 epochs)" in text
    run = read_run(tmp_path / "run")
    assert learning_warning(run) == advice(run)[:1]
    assert next_commands(run) == []


def test_one_that_has_learned_gets_no_such_advice(tmp_path: Path) -> None:
    text = sentences(tmp_path, results(top1=0.56))
    assert "learned nothing" not in text
    assert "best.ckpt is of epoch 1, which was better (top-1 0.500)" in text
    assert "176 images of circle (88%) are taken for square" in text
    assert "The weakest class is circle: top-1 0.120 (200 images)" in text
    assert "has finished 2 of 4 planned epochs" in text


def test_many_steps_without_learning_point_to_the_labels(tmp_path: Path) -> None:
    text = sentences(tmp_path, results(top1=0.5), metrics=METRICS.replace("1,3,", "1,2999,"))
    assert "3000 optimizer steps are enough to learn something: look at the images of each class" in text


def test_the_next_commands_name_the_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", results())
    (run / "best.ckpt").touch()
    start, weights = next_commands(read_run(run))
    assert start == f"python train.py --config configs/data/mine.yaml --model.backbone_weights {run / 'best.ckpt'}"
    assert weights == f"python -m detector weights {run / 'best.ckpt'} {run / 'weights.safetensors'}"
