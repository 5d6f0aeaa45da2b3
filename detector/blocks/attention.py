"""Self-attention over all positions of a feature map, with a convolutional position encoding."""

from torch import Tensor, nn

from detector.blocks.conv import ConvNormAct


class Attention(nn.Module):
    """Multi-head self-attention whose keys have half the size of its values. (B, channels, H, W) -> same."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.value_dim = channels // num_heads
        self.key_dim = self.value_dim // 2
        self.qkv = ConvNormAct(channels, channels + 2 * self.key_dim * num_heads, act=False)
        self.proj = ConvNormAct(channels, channels, act=False)
        self.position = ConvNormAct(channels, channels, 3, groups=channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).view(batch, self.num_heads, 2 * self.key_dim + self.value_dim, height * width)
        q, k, v = qkv.split((self.key_dim, self.key_dim, self.value_dim), dim=2)  # (B, heads, dim, H * W)
        weights = ((q * self.key_dim**-0.5).transpose(2, 3) @ k).softmax(dim=-1)  # (B, heads, H * W, H * W)
        attended = (v @ weights.transpose(2, 3)).view(batch, channels, height, width)
        return self.proj(attended + self.position(v.reshape(batch, channels, height, width)))


class PSABlock(nn.Module):
    """Attention, then a feed-forward layer, each with a residual. (B, channels, H, W) -> same."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.attention = Attention(channels, num_heads)
        self.feed_forward = nn.Sequential(
            ConvNormAct(channels, 2 * channels), ConvNormAct(2 * channels, channels, act=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.feed_forward(x)
