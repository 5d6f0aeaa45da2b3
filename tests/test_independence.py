"""Packages and licenses that the project must not depend on, and sources that it must name."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for name in ("detector", "data", "benchmarks", "tests") for path in (ROOT / name).rglob("*.py")]


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            packages.add(node.module.partition(".")[0])
    return packages


def test_the_library_imports_nothing_around_it() -> None:
    for path in (ROOT / "detector").rglob("*.py"):
        assert not imported(path) & {"data", "train", "evaluate", "benchmarks", "tests", "albumentations"}, path


def test_dynamic_convolution_needs_torch_alone() -> None:
    for path in (ROOT / "detector" / "dynamic").rglob("*.py"):
        assert imported(path) <= {"torch", "detector", *sys.stdlib_module_names}, path


def test_timm_is_imported_by_its_backbones_alone_and_they_when_needed() -> None:
    for path in [
        ROOT / "train.py",
        ROOT / "evaluate.py",
        *(ROOT / "detector").rglob("*.py"),
        *(ROOT / "data").rglob("*.py"),
    ]:
        if path.parent.name != "foreign":
            at_start = ast.Module([node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.If)], [])
            at_start.body = [node for node in at_start.body if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not re.search(r"\b(timm|foreign)\b", ast.unparse(at_start)), path


def test_nothing_imports_agpl_packages() -> None:
    for path in [*SOURCES, *ROOT.glob("*.py")]:
        assert not imported(path) & {"ultralytics", "albumentationsx"}, path


def all_requirements(names: list[str]) -> set[str]:
    """Return all installed packages that ``names`` need, directly or indirectly, without extras."""
    todo, packages = list(names), set()
    while todo:
        name = re.match(r"[\w.-]+", todo.pop())[0].lower().replace("_", "-")
        if name in packages:
            continue
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:  # a package for another platform
            continue
        packages.add(name)
        todo += [requirement for requirement in requirements if "extra ==" not in requirement]
    return packages


def test_no_dependency_is_gpl_or_agpl() -> None:
    names = all_requirements(direct_requirements())
    assert {"torch", "lightning", "albumentations", "pycocotools", "huggingface-hub", "ruff"} <= names
    for name in sorted(names):
        metadata = distribution(name).metadata
        license = " ".join(
            [
                metadata.get("License-Expression") or "",
                (metadata.get("License") or "")[:200],  # the field may have the whole text, which names other licenses later
                *(c for c in metadata.get_all("Classifier") or [] if "License" in c),
            ]
        )
        assert not re.search(r"\bA?GPL|Affero|GNU General", license), f"{name}: {license}"


@pytest.mark.parametrize("name", ["ultralytics", "albumentationsx"])
def test_agpl_packages_are_not_installed_with_ours(name: str) -> None:
    assert name not in all_requirements(direct_requirements())


def direct_requirements() -> list[str]:
    """Return the requirements in pyproject.toml, with those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]


def test_provenance_names_every_dependency_and_every_paper() -> None:
    text = (ROOT / "PROVENANCE.md").read_text()
    for requirement in direct_requirements():
        assert re.match(r"[\w.-]+", requirement)[0] in text, requirement
    for path in [*(ROOT / "detector").rglob("*.py"), *(ROOT / "data").rglob("*.py")]:
        for paper in re.findall(r"arXiv[: ](\d{4}\.\d{5})", path.read_text()):
            assert f"arXiv:{paper}" in text, f"{path} cites arXiv:{paper}, which PROVENANCE.md does not"
