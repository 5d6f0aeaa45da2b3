"""A YOLO26 detector with dynamic convolutions, in PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers
    from detector.dynamic import DynamicConv2d, make_dynamic
    from detector.network.config import VARIANTS
    from detector.network.model import Detector, build_detector
    from detector.predict import Predictor, load_detector
    from detector.training.classifier_module import ClassifierModule
    from detector.training.module import DetectorModule

    __version__: str

__all__ = [
    "VARIANTS", "ClassifierModule", "Detector", "DetectorModule", "DynamicConv2d", "Predictor", "build_detector",
    "load_detector", "make_dynamic",
]  # fmt: skip

# Public names, and their modules. They are imported when a name is used first: ``detector --help`` needs no torch.
_MODULES = {
    "VARIANTS": "detector.network.config",
    "ClassifierModule": "detector.training.classifier_module",
    "Detector": "detector.network.model",
    "DetectorModule": "detector.training.module",
    "DynamicConv2d": "detector.dynamic",
    "Predictor": "detector.predict",
    "build_detector": "detector.network.model",
    "load_detector": "detector.predict",
    "make_dynamic": "detector.dynamic",
}


if not TYPE_CHECKING:  # of a module with __getattr__, type checkers accept every name, also a misspelled one

    def __getattr__(name: str) -> Any:
        """Return a public name, or a module of this package as ``detector.batch``."""
        if name in _MODULES:
            value = getattr(import_module(_MODULES[name]), name)
        elif name == "__version__":
            value = import_module("detector.text").package_version("lightning-dyn-detector")
        else:
            value = _module(name)
        globals()[name] = value
        return value


def _module(name: str) -> Any:
    path = f"{__name__}.{name}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "__version__"})
