"""Classifiers for pre-training whose trunk is foreign: networks of timm, and ParameterNets."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import drop_path as drop_residuals
from timm.models import group_parameters
from torch import Tensor, nn

from detector.dynamic import DynamicConfig, make_dynamic
from detector.network.classifier import Classifier, no_neck
from detector.network.config import DetectorConfig
from detector.network.foreign.adapter import build_trunk, input_statistics, is_ghostnet, trunk_strides
from detector.network.foreign.parameternet import parameternet
from detector.network.foreign.places import dynamic_places, stem_modules
from detector.network.foreign.timm_trunk import architecture, quiet_timm
from detector.network.model import dynamic_config

LAST_OF_GHOST = "blocks.9.0.conv"  # dynamic in a ParameterNet, but after the trunk
WHOLE_TRUNK = ("backbone", "backbone-bottlenecks", "all")  # groups with all layers of a trunk that can be dynamic


class BackboneTrunk(nn.Module):
    """The trunk at its place in a detector, so that groups and patterns for convolutions mean the same."""

    def __init__(self, trunk: nn.Module, places: dict[str, str]) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"trunk": trunk})
        self.convolution_patterns = places


def foreign_classifier(
    config: DetectorConfig, num_classes: int, dropout: float | None = None, drop_path: float = 0.0
) -> Classifier:
    """Build the classifier of the foreign backbone of ``config``, see ``build_classifier``."""
    if config.replace:
        raise ValueError(
            f"replace is for the classifiers of our own backbone, not for {config.backbone}: its files must keep the names "
            "of its tensors; leave it out here, and give it to the detector"
        )
    dynamic = dynamic_config(config)
    with torch.device("meta"):
        trunk, layers = _dynamic_trunk(config, dynamic)
    if config.backbone.startswith("parameternet"):
        network = _parameternet(config.backbone, num_classes, dropout, drop_path)
    else:
        network = _timm_network(config.backbone, num_classes, dropout, drop_path)
    if dynamic is not None and layers:
        make_dynamic(network, [name.replace(".", r"\.") for name in layers], **dynamic.layer)
    mean, std = input_statistics(config.backbone)
    places = trunk, _layers(network), trunk_strides(config)
    classifier = Classifier(network, config.backbone, num_classes, *places, mean, std)
    classifier.part_groups = _part_groups(network, trunk)
    return classifier


def _dynamic_trunk(config: DetectorConfig, dynamic: DynamicConfig | None) -> tuple[list[str], list[str]]:
    """Return the names of the tensors of a detector's trunk, and of the layers that are dynamic in the classifier."""
    trunk = build_trunk(config.backbone, trunk_strides(config)).network
    if dynamic is None:
        return list(trunk.state_dict()), []
    is_ghost = is_ghostnet(trunk)
    places = dynamic_places(trunk, "backbone.trunk", is_ghost)
    if "backbone" in places:
        places |= dict.fromkeys(WHOLE_TRUNK, places["backbone"])
    whole = BackboneTrunk(trunk, places)
    try:
        names = make_dynamic(whole, dynamic.where, **dynamic.layer)
    except ValueError as error:
        raise ValueError(f"dynamic: {error}{no_neck(dynamic.where)}") from None
    layers = [name.removeprefix("backbone.trunk.") for name in names]
    entries = dynamic.where if isinstance(dynamic.where, tuple) else (dynamic.where,)
    if is_ghost and any(entry in WHOLE_TRUNK for entry in entries):
        layers.append(LAST_OF_GHOST)
    return list(trunk.state_dict()), layers


def _timm_network(backbone: str, num_classes: int, dropout: float | None, drop_path: float) -> nn.Module:
    rates: dict[str, Any] = {} if dropout is None else {"drop_rate": dropout}
    rates |= {"drop_path_rate": drop_path} if drop_path else {}
    with quiet_timm():
        try:
            return timm.create_model(architecture(backbone.removeprefix("timm/")), num_classes=num_classes, **rates)
        except TypeError as error:
            raise ValueError(f"{backbone} does not take {' and '.join(rates)} ({error}); leave it out") from error


def _parameternet(name: str, num_classes: int, dropout: float | None, drop_path: float) -> nn.Module:
    """Build a ParameterNet without experts. The rate of stochastic depth rises linearly over its groups, as published."""
    network: Any = parameternet(name.removesuffix("_plain") + "_plain", num_classes)
    if dropout is not None:
        network.drop_rate = dropout
    groups = network.blocks[:-1]  # the last one has no residuals
    for number, group in enumerate(groups if drop_path else []):
        for bottleneck in group:
            bottleneck.ghost2.register_forward_hook(partial(_drop, drop_path * number / (len(groups) - 1)))
    return network


def _drop(rate: float, module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return drop_residuals(output, rate, module.training)


def _part_groups(network: nn.Module, trunk: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the modules of ``network`` in each group of parts; ``trunk`` are the names of its tensors."""
    inside = set(trunk)
    outside = _modules_with([name for name in network.state_dict() if name not in inside])
    in_trunk = _modules_with(inside) - outside
    modules = {name: module for name, module in network.named_modules() if name in in_trunk}
    norms = [name for name, module in modules.items() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    stem = [name for name in stem_modules(network) if name in modules]
    return {"backbone": list(modules), "backbone.stem": stem, "backbone.norms": norms}


def _modules_with(tensors: Iterable[str]) -> set[str]:
    """Return the names of all modules that hold one of ``tensors``, at any depth."""
    return {name[:end] for name in tensors for end, letter in enumerate(name) if letter == "."}


def _layers(network: Any) -> list[list[str]]:
    """Return the names of the parameters by depth, as timm groups them; without its groups, by the outermost modules."""
    if hasattr(network, "group_matcher"):
        groups = group_parameters(network, network.group_matcher(coarse=False))
        return [groups[number] for number in sorted(groups)]
    names = [name for name, _ in network.named_parameters()]
    outermost = dict.fromkeys(name.partition(".")[0] for name in names)
    return [[name for name in names if name.partition(".")[0] == module] for module in outermost]
