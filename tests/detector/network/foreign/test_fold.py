"""Folding of normalization that follows a convolution."""

import torch
from torch import Tensor, nn

from detector.network.foreign.fold import fold_norms


class Network(nn.Module):
    """Pairs of convolution and normalization; one output is used twice, one normalization and one convolution run twice."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("folded", "used_twice", "shared", "repeated"):
            self.add_module(name, nn.Conv2d(4, 4, 3, padding=1))
            self.add_module(f"norm_{name}", nn.BatchNorm2d(4))
        self.first = nn.BatchNorm2d(4)  # before a convolution

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_folded(self.folded(self.first(x))).relu()
        y = self.used_twice(x)
        x = self.norm_used_twice(y) + y
        x = self.norm_shared(x) + self.norm_shared(self.shared(x))
        return self.norm_repeated(self.repeated(self.repeated(x)))


def test_only_pairs_without_other_uses_are_folded() -> None:
    torch.manual_seed(0)
    network = Network().double()
    for _ in range(3):
        network(torch.randn(4, 4, 8, 8, dtype=torch.float64))
    network.eval()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = network(x)
    assert fold_norms(network, lambda: network(x[:1])) == ["folded"]
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)
    assert isinstance(network.norm_folded, nn.Identity)
