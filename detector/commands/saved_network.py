"""The network of an earlier run, for the settings that a configuration leaves open."""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from detector.files import read_yaml
from detector.network.config import merge_overrides, network_options, saved_overrides
from detector.runs.checks import is_run_config
from detector.training.network_settings import start_file
from detector.weights import Weights, WeightsInfo, read_weights
from detector.weights.classifier_files import classifier_of_checkpoint, is_classifier_checkpoint
from detector.weights.missing import missing_weights
from detector.weights.safe_load import load_torch_file


def take_network_of(model: Any, info: WeightsInfo) -> None:
    """Fill in variant, backbone, blocks and overrides of the section ``model`` as in a checkpoint that is resumed."""
    # The width of the class branches came with the weights file of the run's start. The variant may have had other
    # dynamic layers then.
    names = ("class_channels", "dynamic") if model["variant"] in (None, info.variant) else ("class_channels",)
    _fill_in(model, info, {name: value for name, value in info.overrides.items() if name in names})


def choose_network(model: Any) -> None:
    """Fill in the variant that the section ``model`` of train.py leaves open, by the file that the training starts from.

    It is that of a detector; with backbone, blocks and overrides, that of a classifier of pretrain.py; and dyn_n otherwise.
    """
    if model["weights"] is not None:
        model["variant"] = read_weights(model["weights"]).info.variant
    elif (start := start_file(model["backbone_weights"], "backbone_weights")) is not None:
        _take_network_of_start(model, start)
    else:
        model["variant"] = "dyn_n"


def _take_network_of_start(model: Any, start: Weights) -> None:
    saved = start.overrides_for(start.info.variant, num_classes=1)
    rank_zero_info(f"settings of the network in {start.path}: {network_options(start.info.variant, saved)}")
    _fill_in(model, start.info, {name: value for name, value in saved.items() if name not in ("backbone", "replace")})


def _fill_in(model: Any, info: WeightsInfo, saved: dict[str, Any]) -> None:
    """Fill in what the section ``model`` leaves open: of overrides, those that were ``saved``."""
    if model["backbone"] is None and "backbone" not in (model["overrides"] or {}):
        model["backbone"] = info.overrides.get("backbone")
    if model["replace"] is None and "replace" not in (model["overrides"] or {}):
        model["replace"] = info.overrides.get("replace")
    model["block_files"] = model["block_files"] or info.block_files
    model["variant"] = model["variant"] or info.variant
    model["overrides"] = merge_overrides(saved, model["overrides"] or {}) or None


def complete_run_config(config: Any) -> None:
    """Complete the overrides of a run's config.yaml, if ``config`` comes from one: an earlier version wrote fewer."""
    model = config["model"]
    if any(is_run_config(read_yaml(Path(str(path)), "mend it")) for path in config["config"] or []):
        model["overrides"] = saved_overrides(model["variant"], model["overrides"] or {}) or None


def info_of_classifier(path: str) -> WeightsInfo:
    """Return the facts in a checkpoint of pretrain.py, to resume it. Raises ValueError for any other file."""
    if not Path(path).is_file():
        raise ValueError(missing_weights(path))
    content = {} if Path(path).suffix == ".safetensors" else load_torch_file(Path(path))
    if is_classifier_checkpoint(content):
        return classifier_of_checkpoint(content).info
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        raise ValueError(f"{path} is the checkpoint of a detector; resume it with python train.py --ckpt_path {path}")
    raise ValueError(f"{path} is no checkpoint of pretrain.py and cannot be resumed; start from it with --model.weights")
