"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml
from setuptools import find_packages

ROOT = Path(__file__).parents[1]


def test_environment_mirrors_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    extras = project["optional-dependencies"]
    assert sorted(pip) == sorted(project["dependencies"] + extras["export"] + extras["test"])
    assert f"python{project['requires-python']}" in conda


def test_only_the_library_is_packaged() -> None:
    find = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), include=find["include"])
    folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "detector").rglob("*.py")}
    assert set(packages) == folders


def test_every_file_the_readme_names_exists() -> None:

    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`((?:detector|data|configs|tests|docs|benchmarks)/[\w/.]+\.\w+)`|\]\(((?!http)[^)]+)\)", text):
        path = name[0] or name[1]
        assert (ROOT / path).exists(), path
