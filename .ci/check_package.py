"""Check an installed package, in an environment without this repository: ``python -I check_package.py``.

It checks the installed files, builds a detector, detects, exports, and runs the program ``detector``. ``make package`` runs
it for the wheel and for the source distribution.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distribution
from pathlib import Path

PACKAGE = "lightning-dyn-detector"
FILES = r"detector/([\w/]+\.py|py\.typed|report/templates/\w+\.(html|css))"  # all that a wheel has, beside its metadata
NEEDED = ("detector/__init__.py", "detector/py.typed", "detector/report/templates/report.html")
COMMANDS = ("train", "pretrain", "evaluate", "predict", "export", "report", "weights", "summary")


def check_files() -> None:
    """Check that the package has the files that it needs, its license, and no other ones."""
    names = [str(path).replace("\\", "/") for path in distribution(PACKAGE).files or []]
    others = [name for name in names if not re.fullmatch(FILES, name)]
    strange = [name for name in others if not re.search(r"\.dist-info/|/detector(\.exe)?$|__pycache__", name)]
    assert not strange, f"files that do not belong into the package: {strange}"
    assert set(NEEDED) <= set(names), f"missing: {set(NEEDED) - set(names)}"
    assert any(re.search(r"\.dist-info/licenses/LICENSE$", name) for name in names), "the license is missing"
    print(f"{PACKAGE} {distribution(PACKAGE).version}: {len(names)} files")


def check_use(folder: Path) -> Path:
    """Build a detector, write its weights, load them and detect; return the file."""
    import numpy as np

    import detector
    from detector.weights import WeightsInfo, save_weights

    assert "site-packages" in detector.__file__, f"{detector.__file__} is not the installed package"
    path = folder / "w.safetensors"
    names = ["disc", "square", "cross"]
    model = detector.build_detector("dyn_n", num_classes=len(names))
    save_weights(path, model.state_dict(), WeightsInfo("dyn_n", class_names=names, image_size=(64, 64)))
    predictor = detector.load_detector(path)
    (detections,) = predictor(np.zeros((48, 60, 3), np.uint8), score_threshold=0.0)
    assert detections.boxes.shape == (len(detections.scores), 4)
    print(f"{len(detections.scores)} detections with score_threshold 0")
    return path


def check_program(weights: Path, folder: Path) -> None:
    """Run the program ``detector``: its help, a prediction, an export, and a training without a clone."""
    import cv2
    import numpy as np

    cv2.imwrite(str(folder / "image.png"), np.zeros((48, 60, 3), np.uint8))
    assert set(COMMANDS) <= set(run(folder, "--help").split())
    assert distribution(PACKAGE).version in run(folder, "--version")
    assert "1 image or frame" in run(folder, "predict", str(weights), "image.png", "--score_threshold", "0.9")
    assert (folder / "runs/predict/predictions.json").is_file()
    formats = {"onnx": ".onnx", "torchscript": ".torchscript"}
    for name, suffix in formats.items():
        run(folder, "export", str(weights), "--format", name)
        assert weights.with_suffix(suffix).stat().st_size > 1e6, name
    assert "git clone" in run(folder, "train", "--config", "a.yaml", status=1)


def run(folder: Path, *words: str, status: int = 0) -> str:
    """Run ``detector`` with ``words`` in ``folder`` and return what it prints."""
    program = Path(sysconfig.get_path("scripts")) / "detector"
    done = subprocess.run([str(program), *words], cwd=folder, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == status, f"detector {' '.join(words)}: exit status {done.returncode}\n{output}"
    print(f"detector {' '.join(words)}: {(output.strip().splitlines() or ['no output'])[-1]}")
    return output


def main() -> None:
    """Run all checks."""
    check_files()
    with tempfile.TemporaryDirectory() as folder:
        check_program(check_use(Path(folder)), Path(folder))
    print(f"the package works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
