"""The lattice index: an image of point numbers, which answers every question about neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.grid import Size


def lattice_index(ids: Tensor, size: Size) -> Tensor:
    """ids (B, L) int64 without repeats -> (B, H, W) int32: the point's number in its row of ids, or -1."""
    batch, count = ids.shape
    index = torch.full((batch, size[0] * size[1]), -1, dtype=torch.int32, device=ids.device)
    numbers = torch.arange(count, dtype=torch.int32, device=ids.device).expand(batch, -1)
    return index.scatter_(1, ids, numbers).view(batch, *size)
