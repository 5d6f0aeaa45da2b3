"""Layers: every import of the detector points down, to a layer below."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = (  # bottom first; packages of one layer do not import each other
    {"arguments", "batch", "extras", "files", "text", "value_errors"},
    {"config_files", "option_errors"},
    {"dynamic", "imaging", "evaluation"},
    {"network"},
    {"weights"},
    {"training", "predict", "runs"},
    {"callbacks", "export", "report"},
    {"commands"},
)
EXCEPT = {"callbacks": {"training", "predict"}, "dynamic": {"files", "text"}}  # lower, and still not allowed
FOR_DATA = {
    "arguments",
    "batch",
    "config_files",
    "files",
    "option_errors",
    "text",
    "imaging",
    "evaluation",
}  # and detector.report.page, the frame of pages


def imported_modules(path: Path) -> set[str]:
    """Return the modules of ``detector`` that a file imports, without ``detector.``; "" stands for ``detector`` itself."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {module[len("detector.") :] for module in modules if module.partition(".")[0] == "detector"}


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_imports_point_down() -> None:
    below: set[str] = set()
    for layer in LAYERS:
        for package in layer:
            for path in [*(ROOT / "detector").glob(f"{package}.py"), *(ROOT / "detector" / package).rglob("*.py")]:
                assert packages(imported_modules(path)) <= (below | {package}) - EXCEPT.get(package, set()), path
        below |= layer
    modules = [path for path in (ROOT / "detector").iterdir() if path.suffix in ("", ".py")]
    assert below == {path.stem for path in modules if not path.stem.startswith("__")}


def test_data_imports_only_the_batch_contract_drawing_and_coco_numbers() -> None:
    for path in (ROOT / "data").rglob("*.py"):
        assert packages(imported_modules(path) - {"report.page"}) <= FOR_DATA, path


def test_only_commands_parse_options() -> None:
    for path in set((ROOT / "detector").rglob("*.py")) - set((ROOT / "detector" / "commands").glob("*.py")):
        if path.name not in ("__main__.py", "option_errors.py", "own_class.py"):  # own_class: arguments of a class
            assert not re.search(r"^\s*(import|from) .*(argparse|LightningCLI)", path.read_text(), re.M), path
