"""Self-attention over the cells of a grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.norm import ModulatedLayerNorm
from infdiff.nn.recompute import applied
from infdiff.precision import without_autocast


class GridAttention(nn.Module):
    """Residual multi-head attention over all cells of a grid (B, C, G, K), heads of at most 64 channels."""

    def __init__(self, channels: int, head_channels: int = 64) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} attention heads")
        self.norm = ModulatedLayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        qkv = applied(self.qkv, self.norm.of(None), rows).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, c)
        rows = rows + self.out(_attend(qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2))
        return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def _attend(qkv: Tensor) -> Tensor:
    """(3, B, heads, N, c) -> (B, heads, N, c); on CPUs in float32: bfloat16 gradients take three times as long."""
    if qkv.device.type != "cpu":
        return F.scaled_dot_product_attention(*qkv)
    with without_autocast(qkv.device):
        return F.scaled_dot_product_attention(*qkv.to(torch.promote_types(qkv.dtype, torch.float32)))
