"""Optional packages and their extras."""

import tomllib
from pathlib import Path

import pytest

from detector import extras
from detector.extras import EXTRAS, PACKAGE, check_installed

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_every_extra_that_an_error_names_installs_the_package() -> None:
    assert PROJECT["name"] == PACKAGE
    for package, extra in EXTRAS.items():
        requirements = PROJECT["optional-dependencies"][extra]
        assert any(name.startswith((package, package.replace("_", "-"))) for name in requirements), package


def test_a_missing_package_is_an_error_that_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed("this test", "pytest")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"^format openvino needs onnx and openvino, .*-detector\[onnx,openvino\]'"
    ) as error:
        check_installed("format openvino", "onnx", "openvino")
    assert "pip install -e '.[onnx,openvino]'" in str(error.value)
    with pytest.raises(ValueError, match=r"detector\[onnx\]'"):
        check_installed("ONNX Runtime", "onnx", "onnxruntime")
