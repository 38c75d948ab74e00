"""The latent diffusion model's network: an MLP in which every layer reads the input again (Preechakul et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.nn.embedding import LabelEmbedding, sinusoidal_embedding


class LatentMLP(nn.Module):
    """Normalised latents (B, z_dim) at times t (B,) -> the noise in them (B, z_dim).

    label_dim: length of the rows (B, label_dim) that say what the latents' images are; none, or zeros, say nothing.
    """

    def __init__(
        self, z_dim: int, *, width: int = 2048, layers: int = 10, frequencies: int = 64, label_dim: int = 0
    ) -> None:
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers={layers}: want at least 2")
        self.frequencies = frequencies
        self.time = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.label = LabelEmbedding(label_dim, width) if label_dim else None
        inputs = [z_dim] + [width + z_dim] * (layers - 2)
        self.hidden = nn.ModuleList(_Layer(n, width) for n in inputs)
        self.project = nn.Linear(width + z_dim, z_dim)

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        condition = self.time(sinusoidal_embedding(t, self.frequencies).to(z.dtype))
        if self.label is not None and label is not None:
            condition = condition + self.label(label.to(z.dtype))
        h = self.hidden[0](z, condition)
        for layer in self.hidden[1:]:
            h = layer(torch.cat([h, z], dim=1), condition)
        return self.project(torch.cat([h, z], dim=1))


class _Layer(nn.Module):
    """Linear, scaled by the time, LayerNorm, SiLU. The scale starts at 1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear, self.scale, self.norm = nn.Linear(inputs, width), nn.Linear(width, width), nn.LayerNorm(width)
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return F.silu(self.norm(self.linear(x) * (1 + self.scale(condition))))
