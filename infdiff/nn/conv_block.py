"""Blocks of the grid U-Net: residual convolutions and changes of size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.attention import GridAttention
from infdiff.nn.norm import GridLayerNorm, silu_norm


def conv(in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A padded convolution that keeps the variance of what passes through.

    PyTorch's own initialisation shrinks it to a third at every layer without a residual; after a few, the signal is
    small against the biases and the next normalisation blows both up.
    """
    layer = nn.Conv2d(in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class ConvBlock(nn.Module):
    """Residual block on grids: norm, conv 3x3, modulated norm, dropout, conv 3x3; optionally attention after it."""

    def __init__(
        self, in_channels: int, channels: int, *, condition_dim: int, dropout: float = 0.0, attention: bool = False
    ) -> None:
        super().__init__()
        self.norm_in = GridLayerNorm(in_channels)
        self.conv_in = conv(in_channels, channels, 3)
        self.norm_out = GridLayerNorm(channels, condition_dim)
        self.dropout = dropout
        self.conv_out = conv(channels, channels, 3)
        self.skip = conv(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        self.attention = GridAttention(channels) if attention else nn.Identity()
        # A block starts as the identity: the deep network begins as a shallow one.
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.conv_in(silu_norm(self.norm_in, x))
        h = silu_norm(self.norm_out, h, condition)
        h = self.conv_out(F.dropout(h, self.dropout, self.training))
        return self.attention(self.skip(x) + h)


class Downsample(nn.Module):
    """Halves a grid with a strided convolution; an odd side rounds up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Enlarges a grid to `size` by nearest neighbour and smooths it with a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 3)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
