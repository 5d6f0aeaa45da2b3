"""Imports point down: each package of the detector imports only from the layers below it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = (  # bottom first; parts of one layer do not import each other
    {"batch", "files", "text"},
    {"dynamic", "imaging", "evaluation"},
    {"network"},
    {"weights"},
    {"training", "predict", "runs"},
    {"callbacks", "export", "report"},
    {"commands"},
)
NOT_BELOW = {"callbacks": {"training", "predict"}, "dynamic": {"files", "text"}}  # below, and still not to be imported
FOR_DATA = {"batch", "files", "text", "imaging"}  # and detector.report.page, the frame of HTML pages


def imported_parts(path: Path) -> set[str]:
    """The modules of ``detector`` that a file imports, without ``detector.`` itself."""
    modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    return {module.removeprefix("detector.") for module in modules if module and module.startswith("detector.")}


def test_imports_point_down() -> None:
    below: set[str] = set()
    for layer in LAYERS:
        for part in layer:
            for path in [ROOT / "detector" / f"{part}.py", *(ROOT / "detector" / part).rglob("*.py")]:
                if path.exists():
                    allowed = (below | {part}) - NOT_BELOW.get(part, set())
                    assert {module.partition(".")[0] for module in imported_parts(path)} <= allowed, path
        below |= layer
    found = {path.stem for path in (ROOT / "detector").iterdir() if not path.stem.startswith("__")}
    assert found == below


def test_data_imports_only_the_batch_contract_and_what_draws() -> None:
    for path in (ROOT / "data").rglob("*.py"):
        modules = imported_parts(path) - {"report.page", "report.svg"}
        assert {module.partition(".")[0] for module in modules} <= FOR_DATA, path
