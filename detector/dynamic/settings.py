"""The settings of a dynamic layer: their defaults by kind, and which of them go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from detector.dynamic.router import GATES, Gate, RouterName, RouterNormName, Routing

Kind = Literal["mixture", "omni", "residual"]
MOST_EXPERTS = 1024  # each has the size of the plain kernel: more are a typing error, and end in a lack of memory
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mixture": {"num_experts": 4, "gates": (), "routing": "sigmoid", "router": "direct"},
    "omni": {"num_experts": 1, "gates": ("input", "filter"), "routing": "softmax", "router": "bottleneck"},
    "residual": {"num_experts": 4, "gates": (), "routing": "centred", "router": "bottleneck"},
}
_ROUTINGS: dict[str, tuple[Routing, ...]] = {  # by kind; the experts of the others must not have weights with mean 0
    "mixture": ("sigmoid", "softmax"),
    "omni": ("softmax",),
    "residual": ("centred", "softmax", "sigmoid"),
}


@dataclass(frozen=True, init=False)
class LayerSettings:
    """What is set of a dynamic layer besides its shape; None is replaced by the default of the kind.

    For the meaning see ``DynamicConv2d``. Raises ValueError for values that are unknown or do not go together.
    """

    kind: Kind
    num_experts: int
    gates: tuple[Gate, ...]
    routing: Routing
    router: RouterName
    router_norm: RouterNormName

    def __init__(
        self,
        kind: Kind = "mixture",
        num_experts: int | None = None,
        gates: Sequence[Gate] | None = None,
        routing: Routing | None = None,
        router: RouterName | None = None,
        router_norm: RouterNormName | None = None,
    ) -> None:
        _check_choice("kind", kind, get_args(Kind))
        given = {"num_experts": num_experts, "gates": gates, "routing": routing, "router": router}
        values = _DEFAULTS[kind] | {name: value for name, value in given.items() if value is not None}
        values["gates"] = _checked_gates(values["gates"])
        if router_norm is None:
            router_norm = "batch" if values["router"] == "bottleneck" else "none"
        for name, value in {"kind": kind, **values, "router_norm": router_norm}.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        number = self.num_experts
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_EXPERTS:
            raise ValueError(f"num_experts is {number!r}; expected a whole number of at least 1, at most {MOST_EXPERTS}")
        _check_choice("routing", self.routing, get_args(Routing))
        _check_choice("router", self.router, get_args(RouterName))
        _check_choice("router_norm", self.router_norm, get_args(RouterNormName))
        if self.routing not in _ROUTINGS[self.kind]:
            choices = " or ".join(map(repr, _ROUTINGS[self.kind]))
            raise ValueError(f"routing {self.routing!r} does not go with kind {self.kind!r}; choose {choices}")
        if self.kind == "mixture" and self.gates:
            raise ValueError(f"kind 'mixture' has no gates, but gates is {list(self.gates)}; choose 'omni' or 'residual'")
        if self.kind == "omni" and not self.gates and self.num_experts == 1:
            raise ValueError("kind 'omni' with one expert and no gates is a plain convolution; add gates or experts")
        if self.router == "direct" and (self.kind == "omni" or self.gates or self.routing == "centred"):
            raise ValueError(
                "router 'direct' weighs experts only; kind 'omni', gates and routing 'centred' need router 'bottleneck'"
            )
        if self.router == "direct" and self.router_norm != "none":
            raise ValueError(
                f"router 'direct' has no normalization, but router_norm is {self.router_norm!r}; leave out router_norm, or "
                "choose router 'bottleneck'"
            )


def _checked_gates(gates: Sequence[str]) -> tuple[Gate, ...]:
    """Return ``gates`` without repetition, in the order of the routing weights."""
    gates = (gates,) if isinstance(gates, str) else gates
    if not isinstance(gates, list | tuple):
        raise ValueError(f"gates is {gates!r}; expected a list, such as ['input', 'filter']")
    for gate in gates:
        _check_choice("gate", gate, GATES)
    # The experts' weights are a gate of every layer with several experts: naming it changes nothing.
    return tuple(gate for gate in GATES if gate in gates and gate != "expert")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        near = get_close_matches(str(value).lower(), choices, n=1)
        hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
        raise ValueError(f"unknown {name} {value!r}; {hint} {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}")
