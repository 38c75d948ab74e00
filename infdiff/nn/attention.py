"""Self-attention over the cells of a grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.norm import ModulatedLayerNorm


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
        qkv = self.qkv(self.norm(rows)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, c)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        rows = rows + self.out(mixed)
        return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
