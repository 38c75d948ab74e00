"""Blocks of the grid U-Net: residual convolutions and changes of size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.attention import GridAttention
from infdiff.nn.condition import Given
from infdiff.nn.enlarged_conv import conv_of_enlarged
from infdiff.nn.norm import GridLayerNorm
from infdiff.nn.recompute import applied, applied_passing


def conv(in_channels: int, channels: int, kernel_size: int = 3, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A padded convolution that keeps the variance of its input, or scales its standard deviation by `gain`.

    PyTorch's own initialisation shrinks the standard deviation to a third at every layer without a residual. After a
    few layers the signal is small compared with the biases, and the next normalisation amplifies both.
    """
    layer = nn.Conv2d(in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight *= gain
    nn.init.zeros_(layer.bias)
    return layer


class ConvBlock(nn.Module):
    """Residual block on grids: norm, conv 3x3, modulated norm, dropout, conv 3x3; optionally attention after it.

    convolution(in_channels, channels, gain=...) makes the layers, by default `conv`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        condition_dim: int,
        latent_dim: int = 0,
        dropout: float = 0.0,
        attention: bool = False,
        convolution: Callable[..., nn.Module] = conv,
    ) -> None:
        super().__init__()
        self.norm_in = GridLayerNorm(in_channels)
        self.conv_in = convolution(in_channels, channels)
        self.norm_out = GridLayerNorm(channels, condition_dim, latent_dim)
        self.dropout = dropout
        # A block starts as the identity: the deep network begins as a shallow one.
        self.conv_out = convolution(channels, channels, gain=0.0)
        self.skip = conv(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        self.attention = GridAttention(channels) if attention else None

    def forward(self, x: Tensor, condition: Given | None) -> Tensor:
        h, x = applied_passing(self.conv_in, self.norm_in.of(None, silu=True), x)
        norm_out = self.norm_out.of(condition, silu=True)
        if self.dropout and self.training:
            h = self.conv_out(F.dropout(norm_out(h), self.dropout))
        else:
            h = applied(self.conv_out, norm_out, h)
        return self.skip(x) + h if self.attention is None else self.attention(self.skip(x), h)


class Downsample(nn.Module):
    """Halves a grid with a strided convolution; an odd side rounds up."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Upsamples a grid to `size` by nearest neighbour and smooths it with a convolution.

    Where that narrows the features, it comes first: on the smaller grid it costs a quarter.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.narrows = channels < in_channels
        self.conv = conv(in_channels, channels, 3)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.narrows:
            return F.interpolate(self.conv(x), size=size, mode="nearest")
        return conv_of_enlarged(x, self.conv.weight, self.conv.bias, size)
