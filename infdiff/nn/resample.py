"""Changes of a grid's size that know the cells' centres and no weights: a constant stays the same constant."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BilinearDownsample(nn.Module):
    """Halves a grid (B, C, H, W); an odd side rounds up.

    Between even sides this is the mean of the four cells that a new one covers. For odd ones the function is read at
    the new centres, where means over whole cells would shift it by up to a quarter of a new cell.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _resize(x, ((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2))


class BilinearUpsample(nn.Module):
    """Enlarges a grid (B, C, H, W) to `size`."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return _resize(x, size)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
