"""Embeddings of points with their values, of diffusion time, and of time and latent as one condition."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from infdiff.precision import without_autocast


def sinusoidal_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Times (B,), any unit -> (B, dim) float32 cosines and sines at geometrically spaced frequencies."""
    half = dim // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = t[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class PointLift(nn.Module):
    """Values and coordinates of points -> features (B, L, channels).

    positions: coordinates enter as sines and cosines, so that the latent of an image, which is one vector, can say what
    lies where; else the values alone do, as published. Values of fewer than in_channels are followed by zeros.
    """

    octaves = 3

    def __init__(self, in_channels: int, channels: int, positions: bool = True) -> None:
        super().__init__()
        self.positions, self.in_channels = positions, in_channels
        self.linear = nn.Linear(in_channels + (4 * self.octaves if positions else 0), channels)

    def forward(self, x: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """x (B, L, in_channels or fewer), coordinates (B or 1, L, 2) in (0, 1)^2, read with `positions` alone."""
        if x.shape[-1] < self.in_channels:
            x = nn.functional.pad(x, (0, self.in_channels - x.shape[-1]))
        if not self.positions:
            return self.linear(x)
        if coordinates is None:
            raise ValueError("this model reads the coordinates of points")
        frequency = math.pi * 2.0 ** torch.arange(self.octaves, device=x.device)
        angle = (coordinates.unsqueeze(-1) * frequency).flatten(2)
        position = torch.cat([angle.sin(), angle.cos()], dim=-1).to(x.dtype)
        return self.linear(torch.cat([x, position.expand(x.shape[0], -1, -1)], dim=-1))


class LabelEmbedding(nn.Sequential):
    """Rows (B, label_dim) that say what an image is -> (B, dim). Rows of zeros, which say nothing, go to zeros."""

    def __init__(self, label_dim: int, dim: int) -> None:
        first = nn.Linear(label_dim, dim, bias=False)
        nn.init.normal_(first.weight)  # for rows of length 1, as those of classes are
        super().__init__(first, nn.SiLU(), nn.Linear(dim, dim, bias=False))


class Conditioning(nn.Module):
    """Diffusion time t (B,) and latent z (B, z_dim) -> (B, width), the condition that every block reads.

    Without an autoencoder z_dim is 0 and z None. separate: z follows the embedding of t as it is, for norms in which it
    is a scale by itself; else both are one vector of length dim. label_dim: length of the rows (B, label_dim) that say
    what an image is, which are added to the embedding of t; none, or zeros, say nothing.
    """

    # Near times differ by less than bfloat16 resolves of their sines.
    float32_layers: ClassVar[tuple[str, ...]] = ("time", "latent", "label")

    def __init__(
        self, *, dim: int, z_dim: int, separate: bool = False, label_dim: int = 0, frequencies: int = 128
    ) -> None:
        super().__init__()
        self.frequencies, self.z_dim = frequencies, z_dim
        self.width = dim + (z_dim if separate else 0)
        self.time = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.latent = nn.Linear(z_dim, dim) if z_dim and not separate else None
        self.label = LabelEmbedding(label_dim, dim) if label_dim else None

    def forward(self, t: Tensor, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        if (z is None) == bool(self.z_dim):
            raise ValueError("this model needs a latent z" if z is None else "this model takes no latent z")
        if label is not None and self.label is None:
            raise ValueError("this model takes no label")
        sines = sinusoidal_embedding(t, self.frequencies).to(next(self.time.parameters()).dtype)
        with without_autocast(t.device):
            embedding: Tensor = self.time(sines)
            if self.latent is not None and z is not None:
                embedding = embedding + self.latent(z)
            if self.label is not None and label is not None:
                embedding = embedding + self.label(label)
            condition = nn.functional.silu(embedding)
            return condition if z is None or self.latent is not None else torch.cat([condition, z], dim=1)
