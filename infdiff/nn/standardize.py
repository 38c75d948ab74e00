"""Standardises latents to zero mean and unit variance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from infdiff import processes

# Added to variances.
_SMALLEST = 1e-6


class Standardize(nn.Module):
    """(B, C) -> (x - mean) / std for each channel, by running estimates.

    A fresh encoder's latents are a large constant and a small part that differs between images. The denoiser would
    learn to ignore them, and the encoder's gradient, then mostly noise, would drive the encoder to a constant before it
    becomes useful. The estimates of a batch itself would be off by a quarter of a standard deviation for 16 images,
    which is noise on every latent; so only gradients are taken relative to the batch's mean and spread. A push that is
    common to all latents has none, nor has one that makes all of them larger: the estimates follow late, so that an
    encoder that grows would seem to have louder latents for as long as it does, and the denoiser would learn to read
    those. A batch of one image, or with values that are not finite, does not change the estimates. A batch that several
    processes share is one batch.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, channels: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self._measured: list[Tensor] | None = None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self._measured is not None:
            self._measured.append(x.detach().double())
        wide = x.to(self.mean.dtype)
        if self.training and processes.global_size(x.shape[0]) > 1:
            mean, variance = processes.moments(wide)
            self._update(mean.detach(), variance.detach())
            spread = (variance + _SMALLEST).sqrt()
            wide = (wide - mean) * (spread.detach() / spread) + mean.detach()
        # Copied: the next batch changes the estimates before this one's gradient is taken.
        return ((wide - self.mean.clone()) / (self.variance + _SMALLEST).sqrt()).to(x.dtype)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Replace the estimates by mean and variance of everything that comes in before the block ends."""
        measured: list[Tensor] = []
        self._measured = measured
        try:
            yield
        finally:
            self._measured = None
        values = torch.cat(measured)
        self.mean.copy_(values.mean(dim=0))
        self.variance.copy_(values.var(dim=0, correction=0))

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """A plain average over the first batches, then an exponential one."""
        finite = mean.isfinite().all() & variance.isfinite().all()
        weight = torch.where(finite, (1 / (self.batches + 1)).clamp(min=self.momentum), 0.0)
        self.mean.lerp_(torch.where(finite, mean, 0.0), weight)
        self.variance.lerp_(torch.where(finite, variance, 0.0), weight)
        self.batches += finite
