"""A multi-scale network on points alone, whose coordinates are subsampled from level to level.

The sparse downsampling of ∞-Diff's Table 2: in place of the grid of section 4.2, each level keeps a random part of
the points of the one above it, and sparse convolutions act on them. Features go back up by interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from infdiff import ops
from infdiff.models.unet import LAYOUT_SIDE, blocks_of
from infdiff.nn.condition import Given, vector_of
from infdiff.nn.geometry import Level
from infdiff.nn.sparse_block import SparseBlock
from infdiff.ops.rows import gather_rows

# Blocks between the down and the up half, as in the grid networks.
_MIDDLE = 2


class PointDown(nn.Module):
    """The down half: features (B, L, in_channels) -> the deepest ones (B, M, out_channels) and the skip connections.

    multipliers: the channels of each level, the finest first, in units of `channels`. blocks: sparse blocks a level.
    operator: the other arguments of `SparseBlock`.
    """

    def __init__(
        self, *, in_channels: int, channels: int, multipliers: Sequence[int], blocks: int, **operator: Any
    ) -> None:
        super().__init__()
        block: Callable[..., SparseBlock] = partial(SparseBlock, **operator)
        self.widths = [multiplier * channels for multiplier in multipliers]
        inputs = [in_channels, *self.widths[:-1]]
        self.widen = nn.ModuleList(nn.Linear(*pair) for pair in zip(inputs, self.widths, strict=True))
        self.levels = nn.ModuleList(nn.ModuleList(block(width) for _ in range(blocks)) for width in self.widths)
        self.out_channels = self.widths[-1]

    def forward(self, x: Tensor, levels: Sequence[Level], condition: Given | None) -> tuple[Tensor, list[Tensor]]:
        """levels: as many of `Geometry.levels` as there are multipliers."""
        skips = []
        for level, widen, stage in zip(levels, self.widen, self.levels, strict=True):
            x = widen(gather_rows(x, level.kept))  # (B, L, C) -> (B, M, width)
            for block in blocks_of(stage):
                x = block(x, level.geometry, condition)
                skips.append(x)
        return x, skips


class PointUNet(nn.Module):
    """Features (B, L, in_channels) at points, their levels and a condition (B, D) -> (B, L, out_channels).

    Every block of the up half reads the skip connection of its twin. layout: the condition is also laid out over the
    deepest points. The rest as `PointDown`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        latent_dim: int = 0,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        layout: bool = True,
        **operator: Any,
    ) -> None:
        super().__init__()
        operator |= {"condition_dim": condition_dim, "latent_dim": latent_dim}
        block: Callable[..., SparseBlock] = partial(SparseBlock, **operator)
        self.down = PointDown(
            in_channels=in_channels, channels=channels, multipliers=multipliers, blocks=blocks, **operator
        )
        widths = self.down.widths
        self.layout = nn.Linear(condition_dim + latent_dim, widths[-1] * LAYOUT_SIDE**2) if layout else None
        self.middle = nn.ModuleList(block(widths[-1]) for _ in range(_MIDDLE))
        self.levels = nn.ModuleList(
            nn.ModuleList(block(width, skip=True) for _ in range(blocks)) for width in reversed(widths)
        )
        above = [out_channels, *widths[:-1]]
        self.narrow = nn.ModuleList(
            nn.Linear(width, wanted) for width, wanted in zip(reversed(widths), reversed(above), strict=True)
        )

    def forward(self, x: Tensor, levels: Sequence[Level], condition: Given | None) -> Tensor:
        x, skips = self.down(x, levels, condition)  # (B, M, C) at the fewest points
        deepest = levels[-1].geometry
        if self.layout is not None and condition is not None:
            coarse = self.layout(vector_of(condition)).unflatten(1, (-1, LAYOUT_SIDE, LAYOUT_SIDE))  # (B, C, 4, 4)
            points = deepest.points
            x = x + ops.grid_to_points(coarse.to(x.dtype), points.ids, points.size, points.index)
        for block in self.middle:
            x = block(x, deepest, condition)
        for level, stage, narrow in zip(reversed(levels), self.levels, self.narrow, strict=True):
            for block in blocks_of(stage):
                x = block(x, level.geometry, condition, skips.pop())
            x = ops.points_to_points(narrow(x), level.sources)  # (B, M, C) -> (B, L, narrower)
        return x


def pooled_points(features: Tensor, points: ops.Points) -> Tensor:
    """Features (B, L, C) at points, averaged over a coarse grid: (B, C, 4, 4)."""
    coarse = ops.nearest_points(points.ids, points.size, (LAYOUT_SIDE, LAYOUT_SIDE), points.index)
    return ops.points_to_grid(features, coarse)
