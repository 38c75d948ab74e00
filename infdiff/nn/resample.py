"""Bilinear resampling of grids by cell centres, without weights: a constant stays the same constant."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BilinearDownsample(nn.Module):
    """Halves a grid (B, C, H, W); an odd side rounds up.

    For even sides a new cell is the mean of the four cells that it covers. For odd ones the function is read at the
    new centres: means over complete cells would shift it by up to a quarter of a new cell.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _resize(x, ((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2))


class BilinearUpsample(nn.Module):
    """Upsamples a grid (B, C, H, W) to `size`."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return _resize(x, size)


def cell_means(x: Tensor, side: int) -> Tensor:
    """Means of a grid (B, C, H, W) over `side` x `side` cells: (B, C, side, side)."""
    height, width = x.shape[2:]
    if side == 1:
        return x.mean(dim=(2, 3), keepdim=True)
    if height % side or width % side:
        return F.adaptive_avg_pool2d(x, side)
    # The same numbers; and its gradient is deterministic on CUDA, too.
    return F.avg_pool2d(x, (height // side, width // side))


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
