"""Self-attention over the cells of a grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.norm import ModulatedLayerNorm, as_grid, as_rows
from infdiff.nn.recompute import applied_passing
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

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """x, or x + added, and the attention to it."""
        rows, more = as_rows(x), None if added is None else as_rows(added)
        qkv, rows = applied_passing(self.qkv, self.norm.of(None), rows, more)
        rows = rows + self.out(self._attend(qkv))
        return as_grid(rows, x)

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
