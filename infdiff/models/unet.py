"""The skeleton of the grid networks: levels of residual blocks, skip connections from the down to the up half."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.condition import Given, vector_of
from infdiff.nn.conv_block import Downsample, Upsample, conv

# Cells a side of the coarse image that latents are read from and written to.
LAYOUT_SIDE = 4


class GridNetwork(Protocol):
    """A network on grids for `SparseUNet` and `GridDenoiser`: (B, C, G, K) -> (B, D, G, K).

    conv_out: its last convolution. `GridDenoiser` zeroes its weights, so that a new denoiser returns 0.
    """

    @property
    def conv_out(self) -> nn.Conv2d: ...

    def __call__(self, x: Tensor, condition: Given | None) -> Tensor: ...


class Trunk(Protocol):
    """The down half of a grid network, for `SparseEncoder`.

    Called with (B, C, G, K), it returns the deepest features (B, out_channels, g, k) and the skip connections.
    """

    @property
    def out_channels(self) -> int: ...

    def __call__(self, x: Tensor, condition: Given | None) -> tuple[Tensor, list[Tensor]]: ...


@dataclass(frozen=True)
class Levels:
    """The parts of a U-Net: widths, blocks, resampling, attention.

    multipliers: the channels of each level, the top one first, in units of `channels`. The sides of a level's grid are
    half of those above it, rounded up. block(level, in_channels, channels, attention=...) makes a residual block,
    called with features (B, C, G, K) and a condition (B, D) or None. downsample(in_channels, channels) and
    upsample(in_channels, channels) make the modules from one level to the next and back; the latter is called with the
    size to reach. Attention follows every block of the `attention` levels and, if `attention_in_middle`, the first of
    the two blocks in the middle.
    widen_in: where features change their width. blocks: the first block of a level, on the way down and on the way up.
    resampling: the modules between levels, and a convolution after the deepest blocks of the way down; the blocks of
    the way down are then as wide as the level above.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    block: Callable[..., nn.Module]
    attention: Collection[int]
    attention_in_middle: bool
    kernel_size: int = 3  # of the first and the last convolution
    downsample: Callable[[int, int], nn.Module] = Downsample
    upsample: Callable[[int, int], nn.Module] = Upsample
    widen_in: str = "blocks"

    def width(self, level: int) -> int:
        return self.multipliers[level] * self.channels

    def make(self, level: int, in_channels: int, width: int) -> nn.Module:
        return self.block(level, in_channels, width, attention=level in self.attention)


class UNetDown(nn.Module):
    """The down half of the U-Net, also the trunk of the encoder."""

    def __init__(self, levels: Levels, in_channels: int) -> None:
        super().__init__()
        self.conv_in = conv(in_channels, levels.channels, levels.kernel_size)
        self.levels = nn.ModuleList()
        self.reductions = nn.ModuleList()
        self.skip_channels: list[int] = []
        current = levels.channels
        for level in range(len(levels.multipliers)):
            stage = nn.ModuleList()
            width = current if levels.widen_in == "resampling" else levels.width(level)
            for _ in range(levels.blocks):
                stage.append(levels.make(level, current, width))
                current = width
                self.skip_channels.append(current)
            self.levels.append(stage)
            if level < len(levels.multipliers) - 1:
                self.reductions.append(levels.downsample(current, levels.width(level)))
                current = levels.width(level)
        self.out_channels = levels.width(-1)
        self.widen = conv(current, self.out_channels) if levels.widen_in == "resampling" else None

    def forward(self, x: Tensor, condition: Given | None) -> tuple[Tensor, list[Tensor]]:
        """(B, in_channels, G, K) -> the deepest features and the skip connections, one for each block."""
        x = self.conv_in(x)  # (B, channels, G, K)
        skips = []
        for level, stage in enumerate(self.levels):
            if level:
                x = self.reductions[level - 1](x)  # (B, C, g, k) -> (B, C, ceil(g / 2), ceil(k / 2))
            for block in blocks_of(stage):
                x = block(x, condition)  # (B, C, g, k) -> (B, width(level), g, k)
                skips.append(x)
        return x if self.widen is None else self.widen(x), skips  # (B, out_channels, g, k)


class UNet(nn.Module):
    """(B, in_channels, G, K) and condition (B, condition_dim) or None -> (B, out_channels, G, K).

    Every block of the up half reads the skip connection of its twin in the down half. layout_dim: the length of a
    condition that is also laid out over the deepest grid; 0 for none.
    """

    def __init__(self, levels: Levels, *, in_channels: int, out_channels: int, layout_dim: int) -> None:
        super().__init__()
        self.down = UNetDown(levels, in_channels)
        skips = list(self.down.skip_channels)
        current, bottom = self.down.out_channels, len(levels.multipliers) - 1
        self.middle = nn.ModuleList(
            levels.block(bottom, current, current, attention=attention)
            for attention in (levels.attention_in_middle, False)
        )
        # What lies where, from the condition: modulation alone says the same thing everywhere.
        self.layout = nn.Linear(layout_dim, current * LAYOUT_SIDE**2) if layout_dim else None
        self.levels = nn.ModuleList()
        self.enlargements = nn.ModuleList()
        for level in range(bottom, -1, -1):
            stage = nn.ModuleList()
            for _ in range(levels.blocks):
                stage.append(levels.make(level, current + skips.pop(), levels.width(level)))
                current = levels.width(level)
            self.levels.append(stage)
            if level:
                width = levels.width(level - 1) if levels.widen_in == "resampling" else current
                self.enlargements.append(levels.upsample(current, width))
                current = width
        self.conv_out = conv(current, out_channels, levels.kernel_size)

    def forward(self, x: Tensor, condition: Given | None = None) -> Tensor:
        x, skips = self.down(x, condition)  # (B, C, g, k) on the coarsest grid
        if self.layout is not None and condition is not None:
            coarse = self.layout(vector_of(condition)).unflatten(1, (-1, LAYOUT_SIDE, LAYOUT_SIDE))  # (B, C, 4, 4)
            x = x + F.interpolate(coarse.to(x.dtype), x.shape[2:], mode="bilinear", align_corners=False)
        for block in self.middle:
            x = block(x, condition)  # (B, C, g, k)
        for level, stage in enumerate(self.levels):
            if level:
                x = self.enlargements[level - 1](x, skips[-1].shape[2:])  # to the next finer grid
            for block in blocks_of(stage):
                x = block(torch.cat([x, skips.pop()], dim=1), condition)  # (B, C + skip, g, k) -> (B, width, g, k)
        return self.conv_out(x)  # (B, out_channels, G, K)


def blocks_of(stage: nn.Module) -> nn.ModuleList:
    """The blocks of a level; what a module list holds is typed as any module."""
    assert isinstance(stage, nn.ModuleList)
    return stage
