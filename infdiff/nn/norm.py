"""Layer normalisation over channels, modulated by the conditioning vector: one implementation for points and grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ModulatedLayerNorm(nn.Module):
    """LayerNorm over the channels of points (B, L, C), then x * (1 + scale) + shift from the condition.

    The normalisation is applied whether or not there is a condition. Set `condition_dim` to 0 for a plain LayerNorm.
    The modulation starts at zero, so that a new network ignores its condition. latent_dim: the condition ends with a
    latent of this length, after condition_dim other numbers, which scales the result by itself, times 1 + latent_scale
    (as in AdaGN of Preechakul et al. 2022); 0 for none.
    """

    def __init__(self, channels: int, condition_dim: int = 0, latent_dim: int = 0) -> None:
        super().__init__()
        self.condition_dim = condition_dim
        self.norm = nn.LayerNorm(channels)
        self.modulation = nn.Linear(condition_dim, 2 * channels) if condition_dim else None
        self.latent_scale = nn.Linear(latent_dim, channels) if latent_dim else None
        for layer in (self.modulation, self.latent_scale):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        if self.modulation is None or condition is None:
            return x
        modulation = self.modulation(condition[:, : self.condition_dim])
        scale, shift = modulation.unsqueeze(1).to(x.dtype).chunk(2, dim=-1)
        scale = 1 + scale
        if self.latent_scale is not None:
            factor = 1 + self.latent_scale(condition[:, self.condition_dim :]).unsqueeze(1).to(x.dtype)
            scale, shift = scale * factor, shift * factor
        return torch.addcmul(shift, x, scale)


class GridLayerNorm(ModulatedLayerNorm):
    """The same for grids (B, C, G, K); free of copies in channels-last memory."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        rows = super().forward(x.permute(0, 2, 3, 1).flatten(1, 2), condition)
        return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def silu_norm(norm: GridLayerNorm, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Normalise, modulate, activate, as before every convolution of the grid network."""
    return F.silu(norm(x, condition))
