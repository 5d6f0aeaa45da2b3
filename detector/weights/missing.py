"""Messages for a path that is no weights file: what it is, and what to give."""

import re
from pathlib import Path

from detector.network.config import VARIANTS
from detector.text import letters, nearest_names

SUFFIXES = (".ckpt", ".safetensors", ".pt")
EXPECTED = "expected a checkpoint (.ckpt), .safetensors or .pt"
ADDRESS = re.compile(r"(\w{2,}):/+(.*)")  # a Path has only one of the slashes
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def missing_weights(path: str | Path) -> str:
    """Return why ``path``, which is no file, has no weights, and what to give instead."""
    name = str(path)
    if match := ADDRESS.match(name):
        return _address(match[1].lower(), match[2])
    folder = Path(path)
    if folder.is_dir():
        return _folder(folder)
    if variant := next((v for v in VARIANTS if letters(v) == letters(name)), None):
        return (
            f"{name} is a variant and not a file: build_detector({variant!r}, num_classes) makes an untrained detector, and "
            f"--model.variant {variant} trains one. For a trained one give its weights file, as runs/{variant}/best.ckpt"
        )
    if folder.parent.is_dir():
        near = nearest_names(folder.name, sorted(p.name for p in folder.parent.iterdir() if p.suffix in SUFFIXES))
        hint = f"; did you mean {' or '.join(str(folder.with_name(other)) for other in near)}?" if near else ""
        return f"{name}: no such file (looked from {Path.cwd()}){hint}; {EXPECTED}. Nothing is downloaded"
    message = f"{name}: no such file, and no folder {folder.parent} (looked from {Path.cwd()}); {EXPECTED}"
    if HUB_NAME.fullmatch(name) and folder.suffix not in SUFFIXES:
        message += f". If it is a repository of the Hugging Face Hub: {_from_hub(name)}"
    return message


def _address(scheme: str, rest: str) -> str:
    name = f"{scheme}://{rest}"
    if scheme == "hf" or rest.startswith("huggingface.co/"):
        repository = "/".join(rest.removeprefix("huggingface.co/").split("/")[:2])
        return f"{name} is an address and not a file; download it first, or use {_from_hub(repository)}"
    return f"{name} is an address and not a file; download it first, and give the path of the file"


def _from_hub(repository: str) -> str:
    return f"detector.predict.hub.HubPredictor.from_pretrained({repository!r})"


def _folder(folder: Path) -> str:
    files = [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if path.suffix in SUFFIXES]
    best_first = sorted(files, key=lambda path: (path.stem != "best", path.stem != "last", len(path.parts)))
    if not files:
        return f"{folder} is a folder without weights files; {EXPECTED}"
    more = f" ({len(files) - 3} more)" if len(files) > 3 else ""
    return f"{folder} is a folder; give the file in it: {' or '.join(str(path) for path in best_first[:3])}{more}"
