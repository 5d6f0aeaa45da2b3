"""Every option of ``python -m detector`` has its effect. A new option needs a row here."""

import argparse
import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch

from detector.__main__ import build_parser, main
from detector.commands import export as export_command
from detector.commands import predict as predict_command
from detector.commands import report as report_command
from detector.commands import stream as stream_command
from detector.export import ExportSettings
from detector.network.model import Detector
from detector.predict import Predictor
from detector.predict.streams import Stream
from detector.weights.files import read_weights, save_weights
from detector.weights.info import WeightsInfo
from tests.detector.predict.crafted import INFO, blank_image, crafted_predictor
from tests.detector.predict.test_streams import Camera
from tests.detector.report.runs import CONFIG, make_run


def options(command: str) -> set[str]:
    """Return the names of a command's arguments and options."""
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {action.dest for action in commands.choices[command]._actions} - {"help"}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return crafted_predictor()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: Predictor) -> Path:
    """The working directory: two images, and a command ``predict`` whose network gives known detections."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        cv2.imwrite(name, blank_image())

    def load(path: Path, branch: str, image_size: Any) -> Predictor:
        return Predictor(predictor.model, INFO, branch, str(path), image_size)

    monkeypatch.setattr(predict_command, "load_detector", load)
    monkeypatch.setattr(Predictor, "deploy", lambda predictor: predictor)  # which takes long, and has its own tests
    return tmp_path


def predict(*arguments: str) -> Path:
    """Run ``predict`` on a.png, and return the folder that it wrote, by default "out"."""
    words = [*arguments] if "--out" in arguments else [*arguments, "--out", "out"]
    assert main(["predict", "w.ckpt", "a.png", *words, "--overwrite"]) == 0
    return Path(words[words.index("--out") + 1])


def content(*arguments: str) -> dict[str, Any]:
    return json.loads((predict(*arguments) / "predictions.json").read_text())


def scores(*arguments: str) -> list[float]:
    return [round(entry["score"], 3) for entry in content(*arguments)["annotations"]]


def files(*arguments: str) -> list[str]:
    """Return the names of files and folders in the output folder."""
    return sorted(path.name for path in predict(*arguments).iterdir())


def sources(*arguments: str) -> list[str]:
    """Return the images after a.png."""
    return [image["file_name"] for image in content(*arguments)["images"]]


def checkpoint(*names: str) -> str:
    """Return the description of the weights that were used, the last of ``names``."""
    main(["predict", names[-1], "a.png", "--out", "out", "--overwrite"])
    return json.loads(Path("out/predictions.json").read_text())["info"]["description"]


def batches(*arguments: str) -> list[tuple[int, ...]]:
    """Return the shape of each batch of a prediction on three images."""
    shapes, original = [], Detector.detect

    def watched(self: Detector, batch: torch.Tensor, *rest: Any) -> Any:
        shapes.append(tuple(batch.shape))
        return original(self, batch, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "detect", watched)
        cv2.imwrite("c.png", blank_image())
        predict("b.png", "c.png", *arguments)
    return shapes


def device(*arguments: str) -> str:
    """Return the device that the model was moved to."""
    devices, original = [], Detector.to
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Detector, "to", lambda self, *a, **k: devices.extend(map(str, a)) or (self if a else original(self, **k))
        )
        predict(*arguments)
    return devices[-1]


def overwrite(*arguments: str) -> str:
    """Return what happens to a folder with files."""
    Path("full").mkdir(exist_ok=True)
    Path("full/mine.txt").touch()
    try:
        main(["predict", "w.ckpt", "a.png", "--out", "full", *arguments])
    except SystemExit:
        return "refused"
    return "written"


def parts(*arguments: str) -> list[tuple[int, int]]:
    """Return the size of each part of a.png that is given to the network."""
    sizes, original = [], Predictor.prepare

    def watched(self: Predictor, images: Any) -> Any:
        sizes.extend(image.shape[:2] for image in images)
        return original(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "prepare", watched)
        predict(*arguments)
    return sizes


def stream(*arguments: str) -> tuple[str, bool, int]:
    """Run ``predict`` on a made-up camera of two frames; return its name and the settings of the stream."""
    streams = []

    def source(name: str, _: object) -> Camera:
        camera = Camera(0.0, 2)
        camera.name = name
        return camera

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as lines:
        patch.setattr(stream_command, "find_source", source)
        patch.setattr(stream_command, "Stream", lambda *a, **k: streams.append(Stream(*a, **k)) or streams[-1])
        assert main(["predict", "w.ckpt", *arguments]) == 0
    used = streams[-1]
    assert len(lines.getvalue().splitlines()) == used.num_taken > 0
    return used.source.name, used.every_frame, used.reconnects


THREE, NMS = [(1, 3, 64, 64)] * 3, ["--branch", "one2many"]
TILE, WHOLE = ["--tile", "81", "60"], [(81, 120)]  # of an image of 81 x 120 (height x width)
STREAM = ["--stream", "0"]
# Option; words that go with it; its own words; what to observe; what is seen without it and with it.
PREDICT: list[tuple[str, list[str], list[str], Callable[..., Any], Any, Any]] = [
    ("checkpoint", ["w.ckpt"], ["other.ckpt"], checkpoint, "detections of w.ckpt",
     "detections of other.ckpt"),
    ("sources", [], ["b.png"], sources, ["a.png"], ["a.png", "b.png"]),
    ("out", [], ["--out", "new"], lambda *words: str(predict(*words)), "out", "new"),
    ("score_threshold", [], ["--score_threshold", "0.05"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.8, 0.5, 0.3, 0.1]),
    ("score_threshold", [], ["--score_threshold", "0.5"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.8]),
    ("score_threshold", [], ["--score_threshold", "best"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.8]),
    ("score_threshold", NMS, ["--score_threshold", "best"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.8, 0.5]),
    ("classes", [], ["--classes", "dog", "bird"], scores, [0.9, 0.8, 0.5, 0.3], [0.5, 0.3]),
    ("max_detections", [], ["--max_detections", "3"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.8, 0.5]),
    ("branch", ["--score_threshold", "0.05"], NMS, scores, [0.9, 0.8, 0.5, 0.3, 0.1], [0.9, 0.8, 0.5, 0.3]),
    ("iou_threshold", NMS, ["--iou_threshold", "0.5"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.5, 0.3]),
    ("flip_test", [], ["--flip_test"], scores, [0.9, 0.8, 0.5, 0.3], [0.9, 0.9, 0.8, 0.8, 0.5, 0.5, 0.3, 0.3]),
    ("tile", [], ["--tile", "60"], parts, WHOLE, [(60, 60)] * 6 + WHOLE),
    ("tile", [], TILE, parts, WHOLE, [(81, 60)] * 3 + WHOLE),
    ("overlap", TILE, ["--overlap", "0.6"], parts, [(81, 60)] * 3 + WHOLE, [(81, 60)] * 4 + WHOLE),
    ("stream", STREAM, ["--stream", "1"], stream, ("0", False, 5), ("1", False, 5)),
    ("every_frame", STREAM, ["--every_frame"], stream, ("0", False, 5), ("0", True, 5)),
    ("reconnects", STREAM, ["--reconnects", "2"], stream, ("0", False, 5), ("0", False, 2)),
    ("image_size", [], ["--image_size", "32", "96"], batches, THREE, [(1, 3, 32, 96)] * 3),
    ("batch_size", [], ["--batch_size", "2"], batches, THREE, [(2, 3, 64, 64), (1, 3, 64, 64)]),
    ("device", ["--device", "cpu"], ["--device", "meta"], device, "cpu", "meta"),
    ("csv", ["--out", "1"], ["--csv"], files, ["pictures", "predictions.json"],
     ["pictures", "predictions.csv", "predictions.json"]),
    ("crops", ["--out", "2"], ["--crops"], files, ["pictures", "predictions.json"],
     ["crops", "pictures", "predictions.json"]),
    ("no_images", [], ["--no_images", "--out", "3"], files, ["pictures", "predictions.json"], ["predictions.json"]),
    ("overwrite", [], ["--overwrite"], overwrite, "refused", "written"),
]  # fmt: skip


@pytest.mark.parametrize("case", PREDICT, ids=[case[0] for case in PREDICT])
def test_every_option_of_predict_has_its_effect(folder: Path, case: tuple) -> None:
    _, others, words, observe, before, after = case
    assert observe(*others) == before
    assert observe(*others, *words) == after


# Option of export; its words; what differs in the call of ``export``. Files are tested in tests/detector/export.
EXPORT: list[tuple[str, list[str], dict[str, Any]]] = [
    ("format", ["--format", "torchscript"], {"out": "w.torchscript", "format": "torchscript"}),
    ("out", ["--out", "new.onnx"], {"out": "new.onnx"}),
    ("output", ["--output", "raw"], {"output": "raw"}),
    ("branch", ["--branch", "one2many"], {"branch": "one2many"}),
    ("image_size", ["--image_size", "32", "96"], {"image_size": (32, 96)}),
    ("batch_size", ["--batch_size", "4"], {"batch_size": 4}),
    ("dynamic", ["--dynamic", "batch"], {"batch_size": None}),
    ("dynamic", ["--dynamic", "size"], {"dynamic_size": True}),
    ("half", ["--half"], {"half": True}),
    ("dynamic_form", ["--dynamic_form", "mix"], {"dynamic_form": "mix"}),
]
DEFAULT = {"out": "w.onnx", "format": "onnx", "branch": "one2one", "image_size": (64, 64), **vars(ExportSettings())}


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: Predictor) -> list[dict[str, Any]]:
    """The calls of ``export`` by the command, which write a file without content. The working directory is empty."""
    calls = []

    def load(path: Path, branch: str, image_size: Any) -> Predictor:
        return Predictor(predictor.model, INFO, branch, str(path), image_size)

    def export(predictor: Predictor, out: Path, format: str, settings: ExportSettings) -> dict[str, str]:
        call = {"out": str(out), "format": format, "branch": predictor.branch, "image_size": predictor.image_size}
        calls.append(call | vars(settings) | {"checkpoint": predictor.source})
        for path in (out, out.with_suffix(".bin")):
            path.touch()
        return {"version": "1"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_command, "load_detector", load)
    monkeypatch.setattr(export_command, "export", export)
    monkeypatch.setattr(export_command, "check_installed", lambda *packages: None)
    return calls


@pytest.mark.parametrize("case", EXPORT, ids=[case[0] for case in EXPORT])
def test_every_option_of_export_has_its_effect(exported: list[dict[str, Any]], case: tuple) -> None:
    _, words, changes = case
    main(["export", "w.ckpt", *words])
    assert exported == [DEFAULT | changes | {"checkpoint": "w.ckpt"}]


@pytest.mark.parametrize(("format", "file"), [("onnx", "w.onnx"), ("openvino", "w.xml"), ("openvino", "w.bin")])
def test_export_replaces_files_only_if_asked_to(exported: list[dict[str, Any]], format: str, file: str) -> None:
    Path(file).write_text("mine")
    with pytest.raises(SystemExit, match=f"{file} already exists"):
        main(["export", "w.ckpt", "--format", format])
    assert not exported
    main(["export", "w.ckpt", "--format", format, "--overwrite"])
    assert len(exported) == 1


def weights(*arguments: str) -> tuple[str, torch.dtype, str | None]:
    """Run ``weights`` on w.safetensors; return the written class names, precision and license."""
    main(["weights", *arguments])
    written = read_weights(arguments[1])
    (dtype,) = {value.dtype for value in written.state_dict.values() if value.is_floating_point()}
    return ",".join(written.info.class_names), dtype, written.info.license


def test_every_option_of_weights_has_its_effect(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, classes in (("w", ["a", "b", "c"]), ("other", ["d", "e", "f"])):
        info = WeightsInfo(**vars(INFO) | {"class_names": classes, "overrides": {"width": 0.125, "depth": 0.33}})
        save_weights(tmp_path / f"{name}.safetensors", predictor.model.state_dict(), info)
    assert weights("w.safetensors", "1.safetensors") == ("a,b,c", torch.float32, None)
    with pytest.raises(SystemExit, match=r"1\.safetensors already exists"):
        weights("other.safetensors", "1.safetensors")
    words = ["--dtype", "bfloat16", "--license", "MIT", "--overwrite"]
    assert weights("other.safetensors", "1.safetensors", *words) == ("d,e,f", torch.bfloat16, "MIT")


class ReportCalls:
    """What the command ``report`` passes on: paths of the run, ground truth and images, threshold, branch measured."""

    def __init__(self) -> None:
        self.measured: list[tuple[Path, str]] = []
        self.analyzed: list[tuple[str, Path, Path, float | None]] = []
        self.images: list[str | None] = []
        self.plots: list[Path] = []


def relative(path: Path) -> Path:
    return path.resolve().relative_to(Path.cwd())


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReportCalls:
    """The calls of the command, which writes a page without content. The folder ``run`` has only the branch one2many."""
    calls = ReportCalls()
    monkeypatch.chdir(tmp_path)
    for name in ("run", "other"):
        folder = make_run(tmp_path / name / "run")
        shutil.move(folder / "predictions_one2many.json", folder / "predictions.json")
        (folder / "config.yaml").write_text(CONFIG.replace("branch: both", "branch: one2many"))
        (folder / "best.ckpt").touch()

    def analyze(branch: str, predictions: Path, truth: Path, score_threshold: float | None, backend: str) -> SimpleNamespace:
        calls.analyzed.append((branch, relative(predictions), relative(truth), score_threshold, backend))
        return SimpleNamespace(branch=branch, best=None, matching=None, errors=None)

    monkeypatch.setattr(report_command, "analyze", analyze)
    for notes in ("learning_warnings", "leak_notes"):
        monkeypatch.setattr(report_command, notes, lambda run, analyses: [])
    monkeypatch.setattr(report_command, "find_suspects", lambda matching, errors: [])
    monkeypatch.setattr(report_command, "suspect_entries", lambda main, suspects: [{"branch": main.branch}])
    monkeypatch.setattr(report_command, "measure", lambda path, branch: calls.measured.append((relative(path), branch)))
    monkeypatch.setattr(
        report_command,
        "make_report",
        lambda run, _, images, *rest: (calls.images.append(images) or "", [SimpleNamespace(name="a")]),
    )
    monkeypatch.setattr(report_command, "save_plot", lambda plot, folder: calls.plots.append(folder))
    return calls


def test_every_option_of_report_has_its_effect(reported: ReportCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = Path("run/run"), Path("other/run")
    main(["report", str(run)])
    plain = ("one2many", run / "predictions.json", run / "ground_truth.json", None, "pycocotools")
    assert reported.analyzed == [plain]
    assert (reported.measured, reported.images) == ([(run / "best.ckpt", "one2many")], [None])
    assert ((run / "report.html").is_file(), reported.plots) == (True, [run / "figures"])
    assert json.loads((run / "suspect_labels.json").read_text()) == [{"branch": "one2many"}]
    main(["report", str(other), "--score_threshold", "0.4", "--no_speed", "--images", "other/pictures"])
    files = other / "predictions.json", other / "ground_truth.json"
    assert reported.analyzed[1:] == [("one2many", *files, 0.4, "pycocotools")]
    assert (len(reported.measured), reported.images) == (1, [None, "other/pictures"])
    main(["report", str(run), "--out", "page.html", "--ground_truth", "other/run/ground_truth.json"])
    assert reported.analyzed[2:] == [(*plain[:2], other / "ground_truth.json", *plain[3:])]
    assert (Path("page.html").is_file(), reported.plots[2:]) == (True, [Path("figures")])
    assert Path("suspect_labels.json").is_file()
    monkeypatch.setattr(report_command, "check_backend", lambda backend: None)  # the package need not be installed
    main(["report", str(run), "--backend", "ultrafast-pycocotools"])
    assert reported.analyzed[3:] == [(*plain[:4], "ultrafast-pycocotools")]


def test_every_option_has_a_case() -> None:
    assert options("report") == {"folder", "out", "ground_truth", "images", "score_threshold", "no_speed", "backend"}
    assert options("predict") == {case[0] for case in PREDICT}
    assert options("export") == {case[0] for case in EXPORT} | {"checkpoint", "overwrite"}
    assert options("weights") == {"checkpoint", "out", "dtype", "license", "overwrite"}
