"""The grid network: a U-Net after Nichol and Dhariwal (2021), with channel LayerNorm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.conv_block import ConvBlock, Downsample, Upsample, conv

# Cells a side of the coarse picture that codes are read from and written to.
LAYOUT_SIDE = 4


class GridDown(nn.Module):
    """The down half of the U-Net, also the trunk of the encoder.

    attention_sizes: the sides of the grids after which attention is applied; size: the side of the top grid (the
    larger one, where they differ), from which the levels' sides follow. dropout acts on grids of at most dropout_size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_sizes: Sequence[int],
        size: int,
        condition_dim: int,
        dropout: float,
        dropout_size: int,
    ) -> None:
        super().__init__()
        self.conv_in = conv(in_channels, channels, 3)
        self.levels = nn.ModuleList()
        self.reductions = nn.ModuleList()
        self.skip_channels: list[int] = []
        current = channels
        for level, multiplier in enumerate(multipliers):
            side = -(-size // 2**level)
            stage = nn.ModuleList()
            for _ in range(blocks):
                rate = dropout if side <= dropout_size else 0.0
                width = multiplier * channels
                attention = side in attention_sizes
                stage.append(ConvBlock(current, width, condition_dim=condition_dim, dropout=rate, attention=attention))
                current = width
                self.skip_channels.append(current)
            self.levels.append(stage)
            if level < len(multipliers) - 1:
                self.reductions.append(Downsample(current))
        self.out_channels = current

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """(B, C, G, K) -> the deepest features and the list of skip connections."""
        x = self.conv_in(x)
        skips = []
        for level, stage in enumerate(self.levels):
            if level:
                x = self.reductions[level - 1](x)
            for block in stage:
                x = block(x, condition)
                skips.append(x)
        return x, skips


class GridUNet(nn.Module):
    """A U-Net on grids: (B, in_channels, G, K) and condition (B, condition_dim) -> (B, out_channels, G, K).

    Arguments as `GridDown`. Every block of the up half reads the skip connection of its twin in the down half.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_sizes: Sequence[int],
        size: int,
        condition_dim: int,
        dropout: float = 0.0,
        dropout_size: int = 16,
    ) -> None:
        super().__init__()
        self.down = GridDown(
            in_channels=in_channels,
            channels=channels,
            multipliers=multipliers,
            blocks=blocks,
            attention_sizes=attention_sizes,
            size=size,
            condition_dim=condition_dim,
            dropout=dropout,
            dropout_size=dropout_size,
        )
        skips = list(self.down.skip_channels)
        current = self.down.out_channels
        deepest_rate = dropout if -(-size // 2 ** (len(multipliers) - 1)) <= dropout_size else 0.0
        self.middle = nn.ModuleList(
            ConvBlock(current, current, condition_dim=condition_dim, dropout=deepest_rate, attention=attention)
            for attention in (bool(attention_sizes), False)
        )
        # What lies where, from the condition: modulation alone says the same thing everywhere.
        self.layout = nn.Linear(condition_dim, current * LAYOUT_SIDE**2) if condition_dim else None
        self.levels = nn.ModuleList()
        self.enlargements = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            side = -(-size // 2**level)
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(
                    ConvBlock(
                        current + skips.pop(),
                        multiplier * channels,
                        condition_dim=condition_dim,
                        dropout=dropout if side <= dropout_size else 0.0,
                        attention=side in attention_sizes,
                    )
                )
                current = multiplier * channels
            self.levels.append(stage)
            if level:
                self.enlargements.append(Upsample(current))
        self.conv_out = conv(current, out_channels, 3)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x, skips = self.down(x, condition)
        if self.layout is not None and condition is not None:
            coarse = self.layout(condition).unflatten(1, (-1, LAYOUT_SIDE, LAYOUT_SIDE))
            x = x + F.interpolate(coarse.to(x.dtype), x.shape[2:], mode="bilinear", align_corners=False)
        for block in self.middle:
            x = block(x, condition)
        for level, stage in enumerate(self.levels):
            if level:
                x = self.enlargements[level - 1](x, skips[-1].shape[2:])
            for block in stage:
                x = block(torch.cat([x, skips.pop()], dim=1), condition)
        return self.conv_out(x)
