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
        rows = rows + self.out(self._attend(applied(self.qkv, self.norm.of(None), rows)))
        return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def _attend(self, qkv: Tensor) -> Tensor:
        """(B, N, 3 C) -> (B, N, C); on CPUs in float32: bfloat16 gradients take three times as long."""
        if qkv.device.type != "cpu":
            return self._mixed(qkv)
        with without_autocast(qkv.device):
            return self._mixed(qkv.to(torch.promote_types(qkv.dtype, torch.float32)))

    def _mixed(self, qkv: Tensor) -> Tensor:
        # In three pieces of neighbouring channels, whose gradients are put side by side in one pass.
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # from (B, heads, N, c)
