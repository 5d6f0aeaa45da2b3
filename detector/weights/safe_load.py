"""Read files of ``torch.save`` and of safetensors without running anything in them."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

LAYER_PREFIXES = ("ultralytics.", "torch.nn.modules.")  # of the class names that are read as Placeholder
# Values beside the weights, as settings and scores, that are read as Placeholder, too
VALUE_CLASSES = {
    "argparse.Namespace", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
}  # fmt: skip


def load_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file. Raises ValueError if it is none, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"not a readable safetensors file ({error}); get it again") from None


class Placeholder:
    """Takes the place of an object whose class must not be imported. Holds the attributes of the object and does nothing.

    ``class_name`` is the dotted name of the class in the file, ``state`` has the attributes in the file.
    """

    class_name = ""

    def __new__(cls, *_: Any) -> "Placeholder":
        """Accept the arguments of any class."""
        placeholder = super().__new__(cls)
        placeholder.state = {}
        return placeholder

    def __init__(self, *_: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def load_torch_file(path: Path) -> Any:
    """Load a file of ``torch.save`` on the CPU, with layers as ``Placeholder``.

    The file is read with ``weights_only=True``: nothing in it is imported or run. Raises ValueError for a file that is
    incomplete, was not written by ``torch.save``, or holds anything but tensors, plain values and layers.
    """
    names = _unsafe_names(path)
    if refused := [name for name in names if not name.startswith(LAYER_PREFIXES) and name not in VALUE_CLASSES]:
        raise ValueError(
            f"{path}: refused, because it names {', '.join(refused)}, which is neither a tensor nor a layer and would be "
            "run by an ordinary loader; nothing of it was run. Do not use this file unless you trust its author"
        )
    placeholders: list[Any] = [(type("Placeholder", (Placeholder,), {"class_name": name}), name) for name in names]
    try:
        with safe_globals(placeholders):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise ValueError(f"{path}: cannot be read as a file of torch.save ({_first_line(error)}); get it again") from None


def _what_to_give(path: Path) -> str:
    """Return what to do instead of giving ``path``, which is no file of torch.save."""
    if path.suffix in (".onnx", ".xml"):
        return "exported files are run by their own runtime (docs/export.md); give the checkpoint it was exported from"
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin", ""):
        return "get it again, or save it with torch.save"
    return "give a checkpoint (.ckpt), .safetensors or .pt"


def _unsafe_names(path: Path) -> list[str]:
    """Return the dotted names in the file that ``weights_only`` would refuse. Only the names are read."""
    with path.open("rb") as file:
        start = file.read(4)
    try:
        is_whole = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        is_whole = False
    if not is_whole:
        if not start:
            raise ValueError(f"{path}: is an empty file; get it again")
        reason = "it is cut off or damaged" if start == b"PK\x03\x04" else f"it begins with {start!r}, not as a zip file"
        raise ValueError(f"{path}: not a whole file of torch.save: {reason}; {_what_to_give(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked} bytes, more than it has, which torch.save never does")
        return sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except Exception as error:
        raise ValueError(
            f"{path}: the names in it cannot be listed ({_first_line(error)}), so it is not opened; expected a file written "
            "by torch.save with its default pickle protocol"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
