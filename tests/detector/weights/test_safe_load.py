"""Nothing in a weights file is ever run."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from detector.weights.files import read_weights
from tests.detector.reference_files import Trap, borrowed_name, some_weights, write_checkpoint

NAMES = {0: "red", 1: "green", 2: "blue"}


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    """A trap is refused alone, and inside an otherwise valid file."""
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    trap = Trap(os.mkdir, marker)
    torch.save(trap, path)
    with pytest.raises(ValueError, match=r"evil\.pt.*posix\.mkdir|evil\.pt.*nt\.mkdir"):
        read_weights(path)
    write_checkpoint(path, some_weights(), NAMES, date=trap)
    with pytest.raises(ValueError, match=r"evil\.pt.*refused.*mkdir"):
        read_weights(path)
    torch.save(trap, path, pickle_protocol=4)  # its names cannot be listed
    with pytest.raises(ValueError, match=r"evil\.pt.*not opened"):
        read_weights(path)
    path.write_bytes(pickle.dumps(trap))
    with pytest.raises(ValueError, match=r"evil\.pt: not a whole file of torch\.save"):
        read_weights(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(trap))
    assert marker.exists()  # the trap works


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.onnx", "exported files are run by their own runtime .*; give the checkpoint it was exported from"),
        ("config.yaml", r"give a checkpoint \(\.ckpt\), \.safetensors or \.pt"),
        ("a.ckpt", "get it again, or save it with torch.save"),
    ],
)
def test_files_of_another_kind_are_answered_with_what_to_give(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"# a file of another kind")
    with pytest.raises(ValueError, match=f"not a whole file of torch.save: .*; {hint}$"):
        read_weights(tmp_path / name)


def test_a_function_with_the_name_of_a_layer_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"

    def run(folder: str) -> None:
        os.mkdir(folder)

    with borrowed_name("ultralytics.nn.modules.evil.run", run):  # importable also while the file is read
        write_checkpoint(path, some_weights(), NAMES, date=Trap(run, tmp_path / "marker"))
        assert read_weights(path).num_classes == 3
    assert not (tmp_path / "marker").exists()


def test_a_compressed_file_is_not_opened(tmp_path: Path) -> None:
    """A few kilobytes could unpack to more than fits into memory."""
    path = tmp_path / "bomb.pt"
    torch.save(some_weights(), tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            zeros = entry.filename.endswith("data/0")
            packed.writestr(entry.filename, bytes(10**8) if zeros else plain.read(entry))
    with pytest.raises(ValueError, match=r"bomb\.pt: .*it would unpack to 1\d{8} bytes.*not opened"):
        read_weights(path)
