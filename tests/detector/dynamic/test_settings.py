"""Settings of dynamic layers: defaults by kind, and wrong values and combinations with their remedy."""

from typing import Any

import pytest

from detector.dynamic import DynamicConfig

DEFAULTS = {
    "mixture": {"num_experts": 4, "gates": (), "routing": "sigmoid", "router": "direct", "router_norm": "none"},
    "omni": {
        "num_experts": 1, "gates": ("input", "filter"), "routing": "softmax", "router": "bottleneck", "router_norm": "batch",
    },
    "residual": {"num_experts": 4, "gates": (), "routing": "centred", "router": "bottleneck", "router_norm": "batch"},
}  # fmt: skip


@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults_by_kind(kind: str) -> None:
    config = DynamicConfig(kind=kind)
    assert config.layer == {"kind": kind} | DEFAULTS[kind]
    assert DynamicConfig(**config.to_dict()) == config
    assert all(isinstance(value, str | int | float | list) for value in config.to_dict().values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "residul"}, "unknown kind 'residul'; did you mean 'residual'"),
        ({"kind": None}, "unknown kind None; choose 'mixture', 'omni' or 'residual'"),
        ({"kind": "residual", "routing": "centered"}, "unknown routing 'centered'; did you mean 'centred'"),
        ({"kind": "omni", "gates": ["filters"]}, "unknown gate 'filters'; did you mean 'filter'"),
        ({"kind": "omni", "gates": 3}, r"gates is 3; expected a list, such as \['input', 'filter'\]"),
        ({"kind": "omni", "gates": []}, "one expert and no gates is a plain convolution; add gates or experts"),
        ({"kind": "omni", "router": "Bottle"}, "unknown router 'Bottle'; did you mean 'bottleneck'"),
        ({"kind": "omni", "router_norm": "bn"}, "unknown router_norm 'bn'; choose 'batch', 'layer' or 'none'"),
        ({"kind": "omni", "routing": "sigmoid"}, "routing 'sigmoid' does not go with kind 'omni'; choose 'softmax'"),
        ({"kind": "omni", "router": "direct"}, "need router 'bottleneck'"),
        ({"routing": "centred"}, "does not go with kind 'mixture'; choose 'sigmoid' or 'softmax'"),
        ({"gates": ["input"]}, "kind 'mixture' has no gates.*choose 'omni' or 'residual'"),
        ({"router_norm": "batch"}, "leave out router_norm, or choose router 'bottleneck'"),
        ({"num_experts": "4"}, "num_experts is '4'; expected a whole number of at least 1"),
        ({"num_experts": 2.0}, "num_experts is 2.0"),
        ({"num_experts": True}, "num_experts is True"),
        ({"where": None}, "where is None; expected a name such as 'backbone-bottlenecks'"),
        ({"where": []}, r"where is \[\]"),
        ({"where": ["all", 3]}, r"where is \['all', 3\]"),
        ({"temperature": 0.5}, "temperature is 0.5; expected a number of at least 1"),
        ({"temperature": "30"}, "temperature is '30'"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"kind": "omni", "temperature": 30}, "temperature is 30, but num_experts is 1: .* not for gates; leave it out"),
        ({"kind": "residual", "temperature": 30}, "temperature is 30, but routing is 'centred'"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_with_the_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicConfig(**settings)
