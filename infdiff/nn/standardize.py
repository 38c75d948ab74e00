"""Standardises latents to zero mean and unit variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """(B, C) -> (x - mean) / std for each channel, of the batch in training and of running estimates afterwards.

    A fresh encoder's latents are a large constant and a small part that differs between images. The denoiser would
    learn to ignore them, and the encoder's gradient, then mostly noise, would drive the encoder to a constant before it
    becomes useful. A batch of one image, or with values that are not finite, does not change the estimates.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, channels: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training and x.shape[0] > 1:
            wide = x.to(self.mean.dtype)
            mean, variance = wide.mean(dim=0), wide.var(dim=0)
            self._update(mean.detach(), variance.detach())
        return ((x - mean) / (variance + 1e-6).sqrt()).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """A plain average over the first batches, then an exponential one."""
        finite = mean.isfinite().all() & variance.isfinite().all()
        weight = torch.where(finite, (1 / (self.batches + 1)).clamp(min=self.momentum), 0.0)
        self.mean.lerp_(torch.where(finite, mean, 0.0), weight)
        self.variance.lerp_(torch.where(finite, variance, 0.0), weight)
        self.batches += finite
