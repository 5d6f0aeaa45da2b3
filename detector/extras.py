"""Optional packages: the error for a missing one names the extra that installs it."""

from importlib.util import find_spec

PACKAGE = "lightning-dyn-detector"
# Packages that are imported only where they are needed, and their extras in pyproject.toml
EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "nncf": "int8",
    "faster_coco_eval": "fast-eval",
    "ultrafast_pycocotools": "ultrafast-eval",
    "huggingface_hub": "hub",
    "supervision": "track",
}


def check_installed(purpose: str, *packages: str) -> None:
    """Raise ValueError, with the command that installs them, if ``packages`` are missing; ``purpose`` needs them."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS[package] for package in missing))
        raise ValueError(
            f"{purpose} needs {' and '.join(missing)}, not installed here: pip install '{PACKAGE}[{extras}]', "
            f"or in a clone pip install -e '.[{extras}]'"
        )
