"""What the project must not contain or depend on."""

import ast
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for name in ("detector", "data", "benchmarks", "tests") for path in (ROOT / name).rglob("*.py")]


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_library_stands_alone() -> None:
    for path in (ROOT / "detector").rglob("*.py"):
        assert not imported(path) & {"data", "train", "evaluate", "benchmarks", "tests", "albumentations"}, path


def test_nothing_imports_agpl_packages() -> None:
    for path in [*SOURCES, ROOT / "train.py", ROOT / "evaluate.py"]:
        assert not imported(path) & {"ultralytics", "albumentationsx"}, path


def requirements(names: list[str]) -> set[str]:
    """All installed packages that ``names`` need, directly or not, extras left out."""
    todo, seen = list(names), set()
    while todo:
        name = re.match(r"[\w.-]+", todo.pop())[0].lower().replace("_", "-")
        if name in seen:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:  # for another platform
            continue
        seen.add(name)
        todo += [need for need in needs if "extra ==" not in need]
    return seen


def test_no_dependency_is_gpl_or_agpl() -> None:
    names = requirements(direct_requirements())
    assert {"torch", "lightning", "albumentations", "pycocotools", "huggingface-hub", "ruff"} <= names
    for name in sorted(names):
        metadata = distribution(name).metadata
        license = " ".join(
            [
                metadata.get("License-Expression") or "",
                (metadata.get("License") or "")[:200],  # may be the whole text, which names others further down
                *(c for c in metadata.get_all("Classifier") or [] if "License" in c),
            ]
        )
        assert not re.search(r"\bA?GPL|Affero|GNU General", license), f"{name}: {license}"


@pytest.mark.parametrize("name", ["ultralytics", "albumentationsx"])
def test_agpl_packages_are_not_installed_with_ours(name: str) -> None:
    assert name not in requirements(direct_requirements())


def direct_requirements() -> list[str]:
    """What pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + [need for extra in project["optional-dependencies"].values() for need in extra]


def test_provenance_names_every_dependency_and_every_paper() -> None:
    text = (ROOT / "PROVENANCE.md").read_text()
    for need in direct_requirements():
        assert re.match(r"[\w.-]+", need)[0] in text, need
    for path in [*(ROOT / "detector").rglob("*.py"), *(ROOT / "data").rglob("*.py")]:
        for paper in re.findall(r"arXiv[: ](\d{4}\.\d{5})", path.read_text()):
            assert f"arXiv:{paper}" in text, f"{path} cites arXiv:{paper}, which PROVENANCE.md does not"
