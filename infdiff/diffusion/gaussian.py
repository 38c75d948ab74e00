"""Gaussian diffusion of vectors (Ho et al. 2020): the latent model's process. The network predicts the noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.diffusion.schedules import alpha_bar


class GaussianDiffusion:
    """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) epsilon, for x (B, D) and whole times t (B,) in 0..steps."""

    def __init__(self, *, schedule: str = "constant", steps: int = 1000) -> None:
        self.steps = steps
        self.alpha_bar = alpha_bar(schedule, steps).float()
        self._table = self.alpha_bar

    def state(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t."""
        signal, spread = self._coefficients(t)
        return signal * x0 + spread * noise

    def denoiser(self, network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
        """A network (x_t, t (B,)) -> epsilon, as the function (x_t, t) -> x_0 that samplers take."""

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.full((x.shape[0],), t, device=x.device)
            signal, spread = self._coefficients(times)
            return (x - spread * network(x, times)) / signal

        return denoise

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self._table.device != t.device:
            # Copied once: a copy in every step would hold up the device's queue.
            self._table = self.alpha_bar.to(t.device)
        bar = self._table[t].unsqueeze(1)
        return bar.sqrt(), (1 - bar).sqrt()
