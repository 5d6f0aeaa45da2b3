"""Networks of timm without their classifier: names, tags, strides and feature maps."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from torch import nn

from detector.network.foreign.ghost import GhostTrunk, ghost_levels
from detector.text import nearest_names

PROBE_SIZE = (128, 192)  # height, width of the images that a network must take to be a trunk


@dataclass(frozen=True)
class Level:
    """A feature map of a network: its number in ``out_indices`` (or its group in a ghost network), and its channels."""

    index: int
    channels: int


@dataclass(frozen=True)
class Trunk:
    """A network without its classifier, and how to get its maps, finest first."""

    network: nn.Module
    channels: list[int]
    indices: list[int] | None  # argument of ``forward_intermediates``; None: the network returns the maps


def timm_trunk(name: str, strides: Sequence[int], **weights: Any) -> Trunk:
    """Build the trunk of timm's ``name`` with the maps of ``strides``; ``weights`` are arguments of ``create_model``.

    Raises ValueError for an unknown network or tag, and if the network has no map of one of the strides.
    """
    levels = timm_levels(architecture(name))
    if missing := [stride for stride in strides if stride not in levels]:
        raise ValueError(
            f"timm/{name} has no feature map of stride {', '.join(map(str, missing))}; it has those of "
            f"{', '.join(map(str, levels)) or 'none'}. A detector needs 8, 16 and 32, and 4 for a variant with -p2"
        )
    with quiet_timm():
        if _is_ghost_name(architecture(name)):
            trunk = GhostTrunk(_create(name, num_classes=0, **weights), strides)
            return Trunk(trunk, trunk.channels, None)
        indices = [levels[stride].index for stride in strides]
        getter: Any = _create(name, features_only=True, feature_cls="getter", out_indices=indices, **weights)
    return Trunk(getter.model, [levels[stride].channels for stride in strides], list(getter.out_indices))


@lru_cache
def timm_levels(name: str) -> dict[int, Level]:
    """Return the maps of a network by stride, finest first.

    Raises ValueError if timm gives no maps of the network, or only for images of one size.
    """
    with quiet_timm(), torch.device("meta"), torch.no_grad():
        try:
            if _is_ghost_name(name):
                return {s: Level(*level) for s, level in ghost_levels(_create(name, num_classes=0)).items()}
            network: Any = _create(name, features_only=True, feature_cls="getter").eval()
            maps = network.to("meta")(torch.empty(1, 3, *PROBE_SIZE))
        except Exception as error:  # each family has its own
            size = " x ".join(map(str, PROBE_SIZE))
            raise ValueError(
                f"timm/{name} cannot be a backbone: in timm {timm.__version__} it gives no feature maps of an image of "
                f"{size} pixels ({type(error).__name__}: {error}); choose a network that takes images of any size, or "
                "upgrade timm"
            ) from error
    levels = {}
    for index, stride, x in zip(network.out_indices, network.feature_info.reduction(), maps, strict=True):
        height, width = x.shape[2] * stride, x.shape[3] * stride
        if (height, width) == PROBE_SIZE:  # the maps of networks without padding are smaller
            levels[stride] = Level(index, x.shape[1])  # of several maps of one stride the last counts
    return levels


def _create(name: str, **arguments: Any) -> nn.Module:
    """Build a network, also on the meta device, where some networks of older versions of timm can only be moved to."""
    try:
        return timm.create_model(name, **arguments)
    except (NotImplementedError, RuntimeError):
        if torch.get_default_device().type != "meta":
            raise
        with torch.device("cpu"):
            return timm.create_model(name, **arguments).to("meta")


def architecture(name: str) -> str:
    """Return ``name`` without its tag. Raises ValueError if timm has no such network or tag."""
    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        near = nearest_names(network, timm.list_models())
        hint = f"did you mean timm/{' or timm/'.join(near)}?" if near else "see timm.list_models()"
        raise ValueError(f"timm {timm.__version__} has no network {network!r}; {hint}")
    if tag and name not in (known := tags(network)):
        raise ValueError(f"timm {timm.__version__} has no weights {name!r}; it has {', '.join(known) or 'none'}")
    return network


def tags(network: str) -> list[str]:
    """Return the names with a tag of the pretrained weights that timm has for ``network``."""
    return timm.list_pretrained(f"{network}.*")


def pretrained_cfg(name: str) -> PretrainedCfg:
    """Return timm's facts about the weights of ``name``, or of its default tag: mean, std, license, file on the Hub."""
    architecture(name)
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _is_ghost_name(network: str) -> bool:
    return timm.models.model_entrypoint(network).__module__.rpartition(".")[2] in ("ghostnet", "repghost")


@contextmanager
def quiet_timm() -> Iterator[None]:
    """Keep timm's own log lines out of the log: we report what was loaded."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
