"""A path that is no weights file: the message says what it is and what to give."""

from pathlib import Path

import pytest

from detector import load_detector


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/cells/last.ckpt", "runs/cells/best.ckpt", "hub/model.safetensors", "hub/config.json", "plain/a.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("yolo26_n", r"is a variant and not a file: build_detector\('yolo26_n', num_classes\)"),
        ("YOLO26n", r"is a variant and not a file: build_detector\('yolo26_n', num_classes\)"),
        ("https://example.org/a.pt", "https://example.org/a.pt is an address and not a file; download it first"),
        (Path("http://example.org/a.pt"), "http://example.org/a.pt is an address and not a file; download it first"),
        ("s3://bucket/a.ckpt", "is an address and not a file; download it first"),
        ("hf://me/cells", r"HubPredictor\.from_pretrained\('me/cells'\)"),
        ("https://huggingface.co/me/cells/resolve/main/model.safetensors", r"HubPredictor\.from_pretrained\('me/cells'\)"),
        ("me/cells", r"no folder me .*Hugging Face Hub: .*from_pretrained\('me/cells'\)"),
        ("runs/cells", "runs/cells is a folder; give the file in it: runs/cells/best.ckpt or runs/cells/last.ckpt$"),
        ("runs", "runs is a folder; give the file in it: runs/cells/best.ckpt or runs/cells/last.ckpt$"),
        ("hub", "give the file in it: hub/model.safetensors$"),
        ("plain", "plain is a folder without weights files; expected a checkpoint"),
        ("runs/cells/bets.ckpt", "no such file .*did you mean runs/cells/best.ckpt"),
        ("yolo26n.pt", "no such file .*Nothing is downloaded"),
        ("runs/other/best.ckpt", "no such file, and no folder runs/other"),
    ],
)
def test_the_message_points_to_the_right_way(folder: Path, path: str | Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_detector(path)
