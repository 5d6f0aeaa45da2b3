"""``python -m detector predict``: images and videos in, images, videos, JSON, CSV and crops out."""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from detector import build_detector, load_detector
from detector.__main__ import main
from detector.batch import xyxy_to_xywh
from detector.imaging.read import read_upright
from detector.predict.outputs import _folder_names
from detector.text import round_down
from detector.weights.files import read_weights, save_weights
from detector.weights.info import WeightsInfo
from tests.detector.predict.test_sources import UNEVEN, write_matroska, write_video

SETTINGS = ["--score_threshold", "0", "--max_detections", "4"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(0)
    info = WeightsInfo("yolo26_n", class_names=["cat", "a/b: ö"], category_ids=[7, 9], image_size=(64, 96), license="MIT")
    save_weights(tmp_path / "w.safetensors", build_detector("yolo26_n", 2).state_dict(), info)
    return str(tmp_path / "w.safetensors")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("b.jpg", "deep/c.png", "d.bmp")):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (40 + number, 60, 3), np.uint8))
    write_video(folder / "a.avi", frames=3, size=(49, 65))
    return folder


def test_everything_is_written(checkpoint: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    extras = ["--csv", "--crops", "--batch_size", "4", "--out", str(out)]
    assert main(["predict", checkpoint, str(media), *SETTINGS, *extras]) == 0
    assert "6 images and frames, 24 objects" in capsys.readouterr().out
    images = {str(p.relative_to(out / "pictures")) for p in (out / "pictures").rglob("*") if p.is_file()}
    assert images == {"a.mp4", "b.jpg", "deep/c.png", "d.png"}
    assert read_upright(out / "pictures/b.jpg").shape == (40, 60, 3)
    video = cv2.VideoCapture(str(out / "pictures/a.mp4"))
    assert [video.read()[0] for _ in range(4)] == [True, True, True, False]
    rows = list(csv.DictReader((out / "predictions.csv").open(encoding="utf-8")))
    assert [row["frame"] for row in rows[:13:4]] == ["0", "1", "2", ""]
    assert len(list((out / "crops").rglob("*.png"))) == len(rows) == 24
    assert {path.name for path in (out / "crops").iterdir()} <= {"cat", "a_b_ ö"}


def test_predictions_are_a_coco_file(checkpoint: str, media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["predict", checkpoint, str(media), *SETTINGS, "--no_images", "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["predictions.json"]
    coco = COCO(str(out / "predictions.json"))
    assert {i: c["name"] for i, c in coco.cats.items()} == {7: "cat", 9: "a/b: ö"}
    entry = next(image for image in coco.imgs.values() if image["file_name"].endswith("c.png"))
    assert (entry["height"], entry["width"], "frame" in entry) == (41, 60, False)
    entries = coco.imgToAnns[entry["id"]]
    (expected,) = load_detector(checkpoint)(media / "deep/c.png", score_threshold=0, max_detections=4)
    x1, y1, w, h = torch.tensor([entry["bbox"] for entry in entries]).T
    torch.testing.assert_close(torch.stack((x1, y1, x1 + w, y1 + h), dim=1), expected.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.tensor([e["score"] for e in entries]), expected.scores, atol=1e-5, rtol=0)
    assert [entry["category_id"] for entry in entries] == expected.category_ids
    seconds = [image["seconds"] for image in coco.imgs.values() if image["file_name"].endswith("a.avi")]
    assert seconds == [0.0, 0.1, 0.2]
    assert json.loads((out / "predictions.json").read_text())["info"]["license_of_weights"] == "MIT"


def test_the_threshold_is_named(checkpoint: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In what is printed, in the file, and on images that are large enough."""
    unknown = "; that of the best F1 is unknown, because the file records no validation\n"
    weights = read_weights(checkpoint)
    (detections,) = load_detector(checkpoint)(media / "b.jpg", score_threshold=0)
    best = round_down(0.9 * detections.scores.max().item(), 3)
    info = replace(weights.info, best_f1_thresholds={"one2one": best})
    save_weights(tmp_path / "best.safetensors", weights.state_dict, info)
    cv2.imwrite(str(media / "large.png"), np.full((128, 256, 3), 114, np.uint8))
    known = str(tmp_path / "best.safetensors")
    for path, options, sentence, threshold in (
        (checkpoint, [], f"0.25{unknown}", 0.25),
        (known, [], f"0.25; the best F1 in the last validation was at {best} (--score_threshold best)", 0.25),
        (known, ["--score_threshold", "best"], f"{best}: that of the best F1 in the last validation", best),
    ):
        sources = [str(media / "b.jpg"), str(media / "large.png")]
        assert main(["predict", path, *sources, "--overwrite", *options, "--out", str(tmp_path / "out")]) == 0
        assert f"score threshold {sentence}" in capsys.readouterr().out
        content = json.loads((tmp_path / "out/predictions.json").read_text())
        assert content["info"]["score_threshold"] == threshold
    assert min(entry["score"] for entry in content["annotations"]) > best
    note = read_upright(tmp_path / "out/pictures/large.png")[-8:, :40]
    assert (note.min(), (note != 114).mean() > 0.9) == (40, True)
    with pytest.raises(SystemExit, match="unknown, because the file records no validation"):
        main(["predict", checkpoint, str(media), "--score_threshold", "best", "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit):
        main(["predict", checkpoint, str(media), "--score_threshold", "low"])
    assert "'low' is neither a number in 0..1 nor best" in capsys.readouterr().err


def test_classes_size_and_branch(checkpoint: str, media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choice = ["--classes", "cat", "--image_size", "96", "64", "--branch", "one2many", "--no_images", "--out", str(out)]
    assert main(["predict", checkpoint, str(media / "b.jpg"), *SETTINGS, *choice]) == 0
    entries = json.loads((out / "predictions.json").read_text())["annotations"]
    (expected,) = load_detector(checkpoint, "one2many", (96, 64))(
        media / "b.jpg", score_threshold=0, max_detections=4, classes=["cat"]
    )
    assert len(entries) == len(expected) == 4
    assert {entry["category_id"] for entry in entries} == {7}
    np.testing.assert_allclose([entry["score"] for entry in entries], expected.scores, atol=1e-5)


def test_tiles(checkpoint: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Detections are those of the Predictor with tiles; small images are told; wrong values are refused."""
    out, large = tmp_path / "out", media / "large.png"
    cv2.imwrite(str(large), np.random.default_rng(0).integers(0, 256, (64, 150, 3), np.uint8))
    options = ["--tile", "64", "96", "--overlap", "0.1", "--flip_test", "--batch_size", "2", "--out", str(out)]
    assert main(["predict", checkpoint, str(large), *SETTINGS, *options]) == 0
    assert "made no difference" not in capsys.readouterr().out
    entries = json.loads((out / "predictions.json").read_text())["annotations"]
    settings = {"tile": (64, 96), "overlap": 0.1, "flip_test": True, "batch_size": 2}
    (expected,) = load_detector(checkpoint).deploy()(large, 0.0, 4, **settings)
    np.testing.assert_allclose([entry["score"] for entry in entries], expected.scores, atol=1e-5)
    expected_boxes = sorted(box.tolist() for box in xyxy_to_xywh(expected.boxes).round())
    assert sorted(np.round(entry["bbox"]).tolist() for entry in entries) == expected_boxes
    assert expected_boxes != sorted(box.tolist() for box in load_detector(checkpoint)(large, 0.0, 4)[0].boxes.round())
    assert main(["predict", checkpoint, str(media / "b.jpg"), "--tile", "64", "--overwrite", "--out", str(out)]) == 0
    assert "--tile 64 made no difference: every image fits into one tile" in capsys.readouterr().out


def test_unreadable_files_are_named_and_the_rest_is_done(
    checkpoint: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (media / "bad.jpg").write_text("no image")
    (media / "notes.txt").touch()
    out = tmp_path / "out"
    assert main(["predict", checkpoint, str(media), "lost.png", *SETTINGS, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "1 other file in the folders was left out" in printed.out
    assert "2 inputs could not be read and were skipped" in printed.err
    assert main(["predict", checkpoint, str(media / "bad.jpg"), "--tile", "64", "--out", str(tmp_path / "none")]) == 1
    assert "made no difference" not in capsys.readouterr().out  # there is no image
    assert "bad.jpg: is not a whole image" in printed.err
    assert "lost.png: there is no such file" in printed.err
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 6


def test_the_output_inside_of_the_input_is_no_input(
    checkpoint: str, media: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second run, also by relative paths and links, and in a folder that has an earlier output of another name."""
    monkeypatch.chdir(media.parent)
    (media / "a.avi").unlink()
    Path("link").symlink_to(media)
    for out in ("media/first", "link/first", "media"):
        assert main(["predict", checkpoint, "media", *SETTINGS, "--crops", "--out", out, "--overwrite"]) == 0
        assert len(json.loads(Path(out, "predictions.json").read_text())["images"]) == 3
    printed = capsys.readouterr().out
    assert "3 images and frames, 12 objects" in printed
    assert "images and videos were left out, which predict has written: " in printed


def test_an_uneven_video_keeps_its_times(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_matroska(tmp_path / "a.mkv", UNEVEN)
    assert main(["predict", checkpoint, str(tmp_path / "a.mkv"), *SETTINGS, "--out", str(tmp_path / "out")]) == 0
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [image["seconds"] for image in images] == pytest.approx(UNEVEN, abs=2e-3)
    video = cv2.VideoCapture(str(tmp_path / "out/pictures/a.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    frames = []
    while (image := video.read()[1]) is not None:
        frames.append(round(float(image[-12:, -12:].mean()) / 40))
    assert frames == [0] * 2 + [1] * 2 + [2] * 16 + [3, 4]  # at 20 frames a second
    printed = capsys.readouterr().out
    assert "a.mkv: its frames are not evenly spaced. The annotated video has 20 frames per second" in printed
    assert "it repeats 17 frames and leaves out 0" in printed


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode there")
def test_files_whose_names_are_not_utf8(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / os.fsdecode(b"f\xf6lder")
    folder.mkdir()
    write_video(tmp_path / "a.avi", frames=2).rename(folder / os.fsdecode(b"\xe4.avi"))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "a.png").rename(folder / os.fsdecode(b"\xff.png"))
    (folder / os.fsdecode(b"\xfe.jpg")).write_text("no image")
    (folder / os.fsdecode(b"\xfd.txt")).touch()
    out = folder / os.fsdecode(b"\xfc")
    assert main(["predict", checkpoint, str(folder), *SETTINGS, "--out", str(out), "--csv", "--crops"]) == 1
    names = {os.fsencode(path.name) for path in (out / "pictures").iterdir()}
    assert names == {b"\xff.png", b"\xe4.mp4"}
    assert cv2.VideoCapture(str(shutil.copy(out / "pictures" / os.fsdecode(b"\xe4.mp4"), tmp_path / "b.mp4"))).read()[0]
    images = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["images"]
    assert {Path(image["file_name"]) for image in images} <= set(folder.iterdir())  # names are exact
    printed = capsys.readouterr()
    assert "\\udcfd.txt" in printed.out
    assert "\\udcfe.jpg: is not a whole image" in printed.err


def test_crops_of_each_class_have_a_folder() -> None:
    assert _folder_names(["a/b", "a_b", "A_B", "..", ""]) == ["a_b", "a_b-2", "A_B-3", "_", "_-2"]


def test_mistakes_exit_before_anything_is_written(checkpoint: str, media: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    new = ["--out", str(tmp_path / "new")]
    for arguments, message in (
        (["--out", str(tmp_path / "full")], "already exists"),
        ([*new, "--classes", "cow"], "unknown class 'cow'; .*hoose one of cat"),
        ([*new, "--image_size", "100"], "multiples of 32"),
        ([*new, "--image_size", "64", "64", "3"], r"--image_size is \[64, 64, 3\]"),
        ([*new, "--score_threshold", "25"], "score_threshold is 25"),
        ([*new, "--batch_size", "0"], "batch_size is 0"),
        ([*new, "--tile", "0"], r"--tile is 0; expected one side, or height and width"),
        ([*new, "--tile", "64", "64", "64"], r"--tile is \[64, 64, 64\]; expected one side"),
        (
            [*new, "--tile", "64", "--overlap", "1.0"],
            "--overlap is 1.0; expected a share of the tile, .* 0 to 0.9",
        ),
        ([*new, "--overlap", "0.3"], "--overlap is 0.3, but there are no tiles; give their size, as --tile 640"),
        ([*new, "--overlap", "0.2"], "--overlap is 0.2, but there are no tiles"),
        ([*new, "--iou_threshold", "0.7"], "--iou_threshold is of NMS, .*; add --branch one2many"),
        ([*new, "--device", "gpu"], r"--device gpu cannot be used: .*; expected cpu, cuda \(the first"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["predict", checkpoint, str(media), *arguments])
    with pytest.raises(SystemExit, match=r"CKPT and SOURCE are swapped: give .*w\.safetensors first"):
        main(["predict", str(media), checkpoint, *new])
    assert not (tmp_path / "new").exists()
    assert main(["predict", checkpoint, str(media / "b.jpg"), "--out", str(tmp_path / "full"), "--overwrite"]) == 0
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
