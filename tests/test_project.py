"""The project's own files agree with each other."""

import inspect
import re
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

from data import CocoDataModule
from data.transforms import Augmentation

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "PROVENANCE.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("benchmarks", "configs", "data", "detector", "docs", "tests")
PYTHON_FILES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]


def test_environment_mirrors_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    extras = project["optional-dependencies"]
    assert sorted(pip) == sorted(project["dependencies"] + extras["export"] + extras["test"])
    assert f"python{project['requires-python']}" in conda


def test_only_the_library_is_packaged() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = find_packages(str(ROOT), include=setup["packages"]["find"]["include"])
    folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "detector").rglob("*.py")}
    assert set(packages) == folders
    assert setup["package-data"]["detector"] == ["py.typed"]  # then type checkers read the types of an installed package
    assert (ROOT / "detector" / "py.typed").is_file()


def test_every_file_of_the_library_is_packaged() -> None:
    """Files that are not Python need a line in ``package-data``."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packaged = {
        path for name, globs in data.items() for glob in globs for path in (ROOT / name.replace(".", "/")).glob(glob)
    }
    files = {path for path in (ROOT / "detector").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} == packaged


def test_one_version() -> None:
    """CITATION.cff repeats that of pyproject.toml, and the changelog begins with it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1] == version


def test_every_extra_is_explained() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    explained = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/install.md").read_text(), flags=re.M)
    assert sorted(explained) == sorted(extras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_file_that_a_page_names_exists(page: Path) -> None:
    """A name is a path, or the end of one: ``loss.py``."""
    for name in re.findall(r"[\w/]+\.py\b", page.read_text()):
        assert any(str(path).endswith(f"/{name}") for path in PYTHON_FILES), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_path_of_a_page_exists(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/.]+\.\w+)`", text):
        assert path == "configs/data/mine.yaml" or (ROOT / path).exists(), path  # mine.yaml is the reader's
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_the_tree_has_every_folder_of_the_detector() -> None:
    page = "docs/how-it-is-built.md"
    text = (ROOT / page).read_text()
    for init in (ROOT / "detector").glob("*/__init__.py"):
        assert re.search(rf"^(detector/|  ){init.parent.name}/ ", text, flags=re.M), init.parent.name


def test_nothing_names_a_folder_that_readers_do_not_have() -> None:
    """``../shared`` is where the authors keep data sets; docs/results.md says how to get them."""
    texts = [*ROOT.glob("*.*"), ROOT / "Makefile", *(p for f in FOLDERS for p in (ROOT / f).rglob("*.*"))]
    texts = [path for path in texts if path.suffix in (".md", ".py", ".yaml", ".yml", ".toml", "") and path.is_file()]
    assert len(texts) > 200
    named = [path for path in texts if path != Path(__file__) and "../shared" in path.read_text(encoding="utf-8")]
    assert not named


def test_every_configuration_that_a_configuration_or_page_names_exists() -> None:
    paths = [*PAGES, *(ROOT / "configs").rglob("*.yaml")]
    for path in paths:
        for name in re.findall(r"\bconfigs/[\w/-]+\.yaml", path.read_text()):
            assert name == "configs/data/mine.yaml" or (ROOT / name).is_file(), (path, name)


def test_the_template_has_every_setting_of_the_data_with_its_default() -> None:
    """Lines that begin with # are defaults: those of configs/base.yaml, or of the code."""
    text = (ROOT / "configs/data/template.yaml").read_text()
    given = yaml.safe_load(text)["data"]
    commented = "\n".join(re.findall(r"^  # ((?:\w+: (?:\d|null|\{).*)|  .*)", text, flags=re.M))
    defaults = yaml.safe_load(commented)
    augment = defaults.pop("augment")
    assert augment == asdict(Augmentation()) | {"hsv": list(Augmentation().hsv)}
    parameters = {name: p.default for name, p in inspect.signature(CocoDataModule).parameters.items()}
    base = yaml.safe_load((ROOT / "configs/base.yaml").read_text())["data"]
    assert base["augment"] == {"mosaic": "auto", "close_mosaic": "auto"}  # as the template says
    assert defaults == {name: (parameters | base)[name] for name in defaults}
    assert given.keys() | defaults.keys() | {"augment", "seed"} == parameters.keys()  # seed comes from seed_everything
