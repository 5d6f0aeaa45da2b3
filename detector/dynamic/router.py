"""Routers: from the globally pooled image to routing weights, the gates and expert weights of a dynamic layer."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

Gate = Literal["input", "filter", "position", "expert"]
Routing = Literal["sigmoid", "softmax", "centred"]
RouterName = Literal["direct", "bottleneck"]
RouterNormName = Literal["batch", "layer", "none"]
GATES: tuple[Gate, ...] = get_args(Gate)  # in the order of the routing weights
REDUCTION, LEAST_HIDDEN = 16, 16  # hidden units of a bottleneck: a sixteenth of the input channels, and at least 16
# Standard deviation of the logits' biases of an upcycled direct router. Equal experts must get unequal routing weights to
# become different.
UPCYCLE_SPREAD = 0.5


class LinearRouter(nn.Linear):
    """The router of CondConv and of ParameterNet's code: pooled image (B, I) -> sigmoid(linear), (B, E) in 0..1."""

    routing: Routing = "sigmoid"
    temperature = 1.0

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits of the experts."""
        return self

    def forward(self, pooled: Tensor) -> Tensor:
        return _expert_weights(super().forward(pooled), self.routing, self.temperature)

    @torch.no_grad()
    def start_as_plain(self) -> None:
        """Give experts unequal weights whose sum is the same for every image; see ``DynamicConv2d.upcycle``."""
        nn.init.normal_(self.bias, std=UPCYCLE_SPREAD)
        _pair_logits(self)


class MlpRouter(nn.Sequential):
    """The router of ParameterNet, equation 5: pooled image (B, I) -> softmax(MLP), (B, E), with I hidden units."""

    routing: Routing = "softmax"
    temperature = 1.0

    def __init__(self, in_channels: int, num_experts: int) -> None:
        super().__init__(nn.Linear(in_channels, in_channels), nn.ReLU(inplace=True), nn.Linear(in_channels, num_experts))

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits of the experts."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        return last

    def forward(self, pooled: Tensor) -> Tensor:
        return _expert_weights(super().forward(pooled), self.routing, self.temperature)

    @torch.no_grad()
    def start_as_plain(self) -> None:
        """Give experts unequal weights; their sum is always 1."""
        nn.init.normal_(self.last.bias, std=UPCYCLE_SPREAD)


class BottleneckRouter(nn.Module):
    """A router with a hidden layer: pooled image (B, I) -> routing weights (B, U), all gates side by side.

    ``hidden = relu(norm(fc(pooled)))`` has ``max(I // 16, 16)`` units, as in ODConv. A linear head for each gate follows:

    - input, filter and position gates are 2 sigmoid(z / T), in 0..2. Their heads start at zero, so the gates at exactly 1;
    - the weights of experts are softmax(z / T), sigmoid(z / T), or, centred, tanh(norm(z) / T): over a batch of images, the
      mean of each expert's normalized logit is 0.

    Args:
        units: number of units by gate, in the order of ``GATES``.
        norm: ``"batch"`` is BatchNorm over the images. Of the usual normalizations only this one removes what all images
            have in common, so that routing weights differ between images from the start. In training with a single image
            it uses its running statistics, as they are. ``"layer"`` is LayerNorm, for steps that see one or two images.

    ``temperature`` is T for the weights of experts, ``gate_temperature`` for the gates. They are Python numbers, not
    buffers, so that an average of weights leaves them alone. A training changes ``temperature`` only: gates, whose heads
    start at zero, would only learn more slowly. A compiled network compiles again whenever one of them changes.
    """

    expert: nn.Linear  # the head of the experts' weights, if there are experts; the other gates have theirs

    def __init__(self, in_channels: int, units: Mapping[Gate, int], routing: Routing, norm: RouterNormName) -> None:
        super().__init__()
        hidden = max(in_channels // REDUCTION, LEAST_HIDDEN)
        self.routing, self.temperature, self.gate_temperature = routing, 1.0, 1.0
        self.gates = tuple(units)
        self.fc = nn.Linear(in_channels, hidden, bias=norm != "batch")
        norms: dict[RouterNormName, Callable[[int], nn.Module]]
        norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda _: nn.Identity()}
        self.norm = norms[norm](hidden)
        for gate, size in units.items():
            # A normalization follows the centred logits: a bias would have no effect.
            self.add_module(gate, nn.Linear(hidden, size, bias=not self._is_centred(gate)))
        self.share_norm: nn.Module | None = None
        if routing == "centred":
            self.share_norm = nn.BatchNorm1d(units["expert"], affine=False)
        self.reset_parameters()

    def _is_centred(self, gate: Gate) -> bool:
        return gate == "expert" and self.routing == "centred"

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits of the experts."""
        return self.expert

    def reset_parameters(self) -> None:
        """Initialize the layers; the gates start at 1, the weights of experts differ between images."""
        nn.init.kaiming_normal_(self.fc.weight, mode="fan_out", nonlinearity="relu")
        if self.fc.bias is not None:
            nn.init.zeros_(self.fc.bias)
        for gate in self.gates:
            head = getattr(self, gate)
            nn.init.zeros_(head.weight)
            if gate == "expert":  # a silent head would give all experts the same gradient for ever
                nn.init.normal_(head.weight, std=(2 / head.in_features) ** 0.5)
            if head.bias is not None:
                nn.init.zeros_(head.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = F.relu(_normalize(self.norm, self.fc(pooled)))
        logits = {gate: getattr(self, gate)(hidden) for gate in self.gates}
        experts = logits.pop("expert", None)
        weights = []
        if logits:  # one sigmoid for all gates: to start such a small operation takes longer than to run it
            z = _concatenate(list(logits.values()))
            weights.append(2 * (z if self.gate_temperature == 1 else z / self.gate_temperature).sigmoid())
        if experts is not None:
            experts = experts if self.share_norm is None else _normalize(self.share_norm, experts)
            weights.append(_expert_weights(experts, self.routing, self.temperature))
        return _concatenate(weights)

    @torch.no_grad()
    def start_as_plain(self) -> None:
        """Set the gates to 1, and make the sum of the experts' weights the same for every image."""
        for gate in set(self.gates) - {"expert"}:
            nn.init.zeros_(getattr(self, gate).weight)
            nn.init.zeros_(getattr(self, gate).bias)
        if "expert" in self.gates and self.routing == "sigmoid":
            _pair_logits(self.last)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold BatchNorms with their running statistics into the linear layers before them, in place, for inference."""
        self.norm = _fold_norm(self.fc, self.norm)
        if self.share_norm is not None:
            self.share_norm = _fold_norm(self.expert, self.share_norm)


def _concatenate(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


def _normalize(norm: nn.Module, x: Tensor) -> Tensor:
    """Return ``norm`` of ``x`` (B, n). A BatchNorm in training uses its running statistics, as they are, for B below 2.

    The rule is here and not in a class of its own: a change to SyncBatchNorm and back would lose the class.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training and len(x) < 2 and not _is_shared(norm):
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    return norm(x)


def _is_shared(norm: nn.Module) -> bool:
    """Return True for a norm that has the statistics of several processes; each of them must call it."""
    if not (isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size(norm.process_group) > 1


def _expert_weights(logits: Tensor, routing: Routing, temperature: float) -> Tensor:
    """Return the weights (B, E) of the experts for their logits."""
    logits = logits if temperature == 1 else logits / temperature
    if routing == "softmax":
        return logits.softmax(dim=1)
    return logits.sigmoid() if routing == "sigmoid" else logits.tanh()


def _pair_logits(last: nn.Linear) -> None:
    """Give experts 2 i and 2 i + 1 opposite logits, an odd last one the logit 0: the sigmoids then sum to E / 2."""
    num_paired = last.out_features // 2 * 2
    for parameter in (last.weight, last.bias):
        parameter[1:num_paired:2] = -parameter[:num_paired:2]
        parameter[num_paired:] = 0


def _fold_norm(linear: nn.Linear, norm: nn.Module) -> nn.Module:
    """Fold ``norm`` into ``linear`` if it is a BatchNorm, and return what remains of it."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.running_var.add(norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
    linear.weight.mul_(scale[:, None])
    bias = shift if linear.bias is None else linear.bias * scale + shift
    linear.bias = nn.Parameter(bias.detach(), requires_grad=linear.weight.requires_grad)
    return nn.Identity()
