"""The files of own blocks: remembered, and found again without PYTHONPATH, but only if they are the same."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.network.replace.block_files import BlockFiles, add_import_folders, import_blocks, without_folders

CODE = "import torch\nfrom torch import nn\ntorch.rand(3)\nclass Block(nn.Identity): pass\n"
ENTRIES = [{"where": ["sppf"], "layer": {"class_path": "own_folder.own_module.Block", "init_args": {}}}]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module own_folder.own_module that Python does not find."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "own_folder" / "own_module.py"
    path.parent.mkdir()
    path.write_text(CODE)
    _forget()
    return path


def _forget() -> None:
    """Make Python import the module again, as a new process does."""
    for name in [name for name in sys.modules if name.startswith("own_folder")]:
        del sys.modules[name]
    sys.path[:] = [folder for folder in sys.path if not (Path(folder) / "own_folder").exists()]


@pytest.fixture
def remembered(file: Path) -> BlockFiles:
    """The facts that a training saves."""
    add_import_folders([file.parents[1]])
    state = torch.random.get_rng_state()
    files = import_blocks(ENTRIES)
    assert torch.equal(torch.random.get_rng_state(), state)  # although the module draws numbers
    _forget()
    return files


def test_the_file_is_remembered_and_found_again(file: Path, remembered: BlockFiles) -> None:
    assert remembered["own_folder.own_module"]["path"] == str(file)
    assert len(remembered["own_folder.own_module"]["sha256"]) == 64
    assert import_blocks(ENTRIES, remembered) == remembered


def test_installed_blocks_and_our_own_have_no_file() -> None:
    layers = ["torch.nn.Identity", "detector.DynamicConv2d", "detector.network.blocks.SPPF"]
    assert import_blocks([{"where": ["sppf"], "layer": {"class_path": path, "init_args": {}}} for path in layers]) == {}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file, facts: file.unlink(), "is not here"),
        (lambda file, facts: file.write_text(CODE + "#"), "has changed since"),
        (lambda file, facts: facts.update(path="own_folder/own_module.py"), "is not here"),
        (lambda file, facts: facts.update(without_folders({"m": facts})["m"]), "is not here"),
        (lambda file, facts: facts.update(path=str(file.rename(file.with_name("other.py")))), "has changed since"),
    ],
)
def test_another_file_is_not_run(
    file: Path, remembered: BlockFiles, change: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parents[1])
    change(file, remembered["own_folder.own_module"])
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if Path(folder or ".").resolve() != file.parents[1]])
    with pytest.raises(
        ValueError, match=f"no module own_folder.own_module, and its file in training, .*{problem}.*PYTHONPATH"
    ):
        import_blocks(ENTRIES, remembered)
    assert "own_folder.own_module" not in sys.modules


def test_what_python_finds_is_used_and_a_change_is_said(file: Path, remembered: BlockFiles) -> None:
    file.write_text(CODE + "#")
    add_import_folders([file.parents[1]])
    with pytest.warns(UserWarning, match="the code of own_folder.own_module is not that of the training any more"):
        now = import_blocks(ENTRIES, remembered)
    assert now["own_folder.own_module"]["sha256"] != remembered["own_folder.own_module"]["sha256"]
