"""ParameterNet (arXiv:2306.14525): ghost networks with dynamic convolutions, as classifiers and as trunks.

Built from timm's GhostNet. Sizes are those of the published code; 300m is inferred from the published counts.
"""

from collections.abc import Mapping, Sequence

from timm.models.ghostnet import GhostNet
from torch import Tensor, nn

from detector.dynamic import DynamicConfig, make_dynamic
from detector.network.foreign.ghost import GhostTrunk

Row = tuple[int, int, int, float, int]
# Rows of bottlenecks by group: kernel size, channels inside, output channels, ratio of squeeze-excitation, stride.
# Channels are for width 1.
_GHOSTNET: list[list[Row]] = [
    [(3, 16, 16, 0, 1)],
    [(3, 48, 24, 0, 2)],
    [(3, 72, 24, 0, 1)],
    [(5, 72, 40, 0.25, 2)],
    [(5, 120, 40, 0.25, 1)],
    [(3, 240, 80, 0, 2)],
    [(3, 200, 80, 0, 1), *2 * [(3, 184, 80, 0, 1)], (3, 480, 112, 0.25, 1), (3, 672, 112, 0.25, 1)],
    [(5, 672, 160, 0.25, 2)],
    2 * [(5, 960, 160, 0, 1), (5, 960, 160, 0.25, 1)],
]
_GHOSTNET_600M: list[list[Row]] = [
    *_GHOSTNET[:4],
    2 * [(3, 120, 40, 0.25, 1)],
    _GHOSTNET[5],
    [*3 * [(3, 200, 80, 0, 1)], (3, 480, 112, 0.25, 1), *2 * [(3, 672, 112, 0.25, 1)]],
    _GHOSTNET[7],
    5 * [(3, 960, 160, 0.25, 1)],
]
_SIZES: dict[str, tuple[list[list[Row]], float]] = {  # rows and width; the names are PARAMETERNETS of config.py
    "parameternet_300m": (_GHOSTNET, 1.45),
    "parameternet_600m": (_GHOSTNET_600M, 1.9),
    "parameternet_w100": (_GHOSTNET, 1.0),
    "parameternet_w050": (_GHOSTNET, 0.5),
}
# The dynamic convolutions: all but the strided depthwise ones, squeeze-excitation and the head of the classifier.
WHERE = r"conv_stem|blocks\.\d+\.\d+\.(ghost[12]\.(primary_conv|cheap_operation)\.0|shortcut\.[02]|conv)"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the input in training on ImageNet


def parameternet(name: str, num_classes: int = 1000, dynamic: DynamicConfig | None = None) -> GhostNet:
    """Build a ParameterNet classifier, (B, 3, H, W) normalized -> logits (B, num_classes).

    ``dynamic`` has the number of experts and the routing, by default 4 and sigmoid; its ``where`` is not used. With
    ``_plain`` after the name there are no experts.
    """
    rows, width = _SIZES[name.removesuffix("_plain")]
    network = GhostNet([[list(row) for row in group] for group in rows], num_classes=num_classes, width=width)
    relus = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    for relu in relus:
        network.set_submodule(relu, nn.Hardswish(inplace=True))
    if not name.endswith("_plain"):
        dynamic = dynamic or DynamicConfig()
        make_dynamic(network, WHERE, **dynamic.layer)
    return network


def parameternet_trunk(name: str, strides: Sequence[int]) -> GhostTrunk:
    """Build the trunk of a ParameterNet, without experts: ``make_dynamic`` with ``WHERE`` comes later."""
    return GhostTrunk(parameternet(name.removesuffix("_plain") + "_plain", num_classes=0), strides)


def official_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a ParameterNet with the names of the official code in place of ours."""
    dynamic = {name.partition(".router.")[0] for name in state_dict if ".router." in name}
    kernels = {f"{name}.weight": f"{name}.cond_conv.weight" for name in dynamic}
    return {kernels.get(name, name.replace(".router.", ".routing.")): value for name, value in state_dict.items()}


def converted_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a ParameterNet with our names in place of those of the official code."""
    return {
        name.replace(".cond_conv.weight", ".weight").replace(".routing.", ".router."): value
        for name, value in state_dict.items()
    }
