"""The latent as a coarse image: what lies where, said directly."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.coordinates import Size


class Sketch(nn.Module):
    """Latent (B, z_dim) -> features (B, channels, G, K), linear in the latent and smooth over the grid.

    Modulation says the same thing everywhere, so that a network takes long to learn from it where things are; a linear
    map to a coarse image, with its twin in the encoder, is learned within minutes. It starts at zero.
    """

    def __init__(self, z_dim: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.linear = nn.Linear(z_dim, channels * side**2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor, grid: Size) -> Tensor:
        coarse = self.linear(z).unflatten(1, (-1, self.side, self.side))  # (B, channels, side, side)
        return F.interpolate(coarse, grid, mode="bilinear", align_corners=False)
