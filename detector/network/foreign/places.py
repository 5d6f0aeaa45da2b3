"""Groups of convolutions of a trunk that can be dynamic, and the modules of its stem."""

import re
from collections.abc import Iterable, Mapping
from typing import cast

from torch import nn

from detector.dynamic.plain import can_be_dynamic
from detector.network.foreign.parameternet import WHERE as GHOST_WHERE

STEM = re.compile(r"(conv_stem|conv1|bn1|norm1|stem|patch_embed)\w*(\..+)?")
SQUEEZE_EXCITATION = re.compile(r"SqueezeExcit|(^|Effective|_)SEModule|SEWithNorm|EcaModule|CecaModule|GlobalContext")


def stem_modules(trunk: nn.Module) -> list[str]:
    """Return the names of the outermost modules of the stem of ``trunk``: its first layers, by their usual names."""
    names = [name for name, _ in trunk.named_children() if STEM.fullmatch(name)]
    return names or [next(name for name, module in trunk.named_modules() if isinstance(module, nn.Conv2d))]


def dynamic_places(trunk: nn.Module, prefix: str, is_ghost: bool) -> dict[str, str]:
    """Return groups of convolutions of ``trunk`` by name, as regular expressions; ``prefix`` is the trunk's own name.

    ``backbone`` has all convolutions except those of the stem and of squeeze-excitation; in a GhostNet, those that are
    dynamic in a ParameterNet. The other groups are parts of it. A group without convolutions is left out.
    """
    if is_ghost:
        pattern = re.compile(GHOST_WHERE)
        names = [n for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d) and pattern.fullmatch(n)]
    else:
        names = list(_by_rule(trunk))
    convs = {name: cast(nn.Conv2d, trunk.get_submodule(name)) for name in names}
    depthwise = [name for name, conv in convs.items() if conv.groups == conv.in_channels > 1]
    pointwise = [name for name, conv in convs.items() if conv.kernel_size == (1, 1) and name not in depthwise]
    groups = {"backbone": names, "backbone-pointwise": pointwise, "backbone-depthwise": depthwise}
    return {name: _alternatives(members, prefix) for name, members in groups.items() if members}


def _by_rule(trunk: nn.Module) -> Iterable[str]:
    """Return the names of all convolutions that can be dynamic, but the first one, the stem and squeeze-excitation."""
    modules = dict(trunk.named_modules())
    excitations = tuple(
        f"{name}." for name, m in modules.items() if name.endswith(".se") or SQUEEZE_EXCITATION.search(type(m).__name__)
    )
    convs = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    stem = set(stem_modules(trunk))
    return [
        name
        for name in convs[1:]
        if name.partition(".")[0] not in stem and not name.startswith(excitations) and can_be_dynamic(modules[name])
    ]


def _alternatives(names: Iterable[str], prefix: str) -> str:
    return rf"{re.escape(prefix)}\.({'|'.join(map(re.escape, names))})"


def with_neck_and_head(places: Mapping[str, str], our_places: Mapping[str, str]) -> dict[str, str]:
    """Return the groups of a detector with a foreign backbone: ``places`` of its trunk, and ``own`` without our backbone.

    ``backbone-bottlenecks``, the group of the variants dyn_*, is ``backbone``.
    """
    outside = rf"(?!backbone\.trunk\.)({our_places['all']})"
    if "backbone" not in places:  # as where all convolutions standardize their weights
        return {"neck-bottlenecks": our_places["neck-bottlenecks"], "all": outside}
    backbone = places["backbone"]
    groups = {
        "backbone-bottlenecks": backbone,
        "neck-bottlenecks": our_places["neck-bottlenecks"],
        "all": f"{backbone}|{outside}",
    }
    return {**places, **groups}
