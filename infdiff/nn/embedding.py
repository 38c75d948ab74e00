"""Conditioning: diffusion time and latent code to one vector that every block reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Times (B,), any unit -> (B, dim) float32 cosines and sines at geometrically spaced frequencies."""
    half = dim // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = t[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class PointLift(nn.Module):
    """Values at points and where the points are -> features (B, L, channels).

    Positions enter as sines and cosines of the coordinates, so that the code of an image, which is one vector, can say
    what lies where.
    """

    octaves = 3

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels + 4 * self.octaves, channels)

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """x (B, L, in_channels), coordinates (B or 1, L, 2) in (0, 1)^2."""
        frequency = math.pi * 2.0 ** torch.arange(self.octaves, device=x.device)
        angle = (coordinates.unsqueeze(-1) * frequency).flatten(2)
        position = torch.cat([angle.sin(), angle.cos()], dim=-1).to(x.dtype)
        return self.linear(torch.cat([x, position.expand(x.shape[0], -1, -1)], dim=-1))


class Conditioning(nn.Module):
    """Diffusion time t (B,) and latent code z (B, z_dim) -> (B, dim). Without an autoencoder z_dim is 0 and z None."""

    def __init__(self, *, dim: int, z_dim: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.time = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.code = nn.Linear(z_dim, dim) if z_dim else None

    def forward(self, t: Tensor, z: Tensor | None) -> Tensor:
        if (z is None) != (self.code is None):
            raise ValueError("this model needs a latent code z" if z is None else "this model takes no latent code z")
        embedding: Tensor = self.time(sinusoidal_embedding(t, self.frequencies).to(self.time[0].weight.dtype))
        if self.code is not None and z is not None:
            embedding = embedding + self.code(z)
        return nn.functional.silu(embedding)
