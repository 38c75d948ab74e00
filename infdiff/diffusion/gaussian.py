"""Gaussian diffusion of vectors (Ho et al. 2020): the latent model's process. The network predicts the noise."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.diffusion.process import Denoiser, Network
from infdiff.diffusion.schedules import AlphaBar


class GaussianDiffusion:
    """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) epsilon, for x (B, D) and integers t (B,) in 0..steps."""

    def __init__(self, *, schedule: str = "constant", steps: int = 1000) -> None:
        self.steps = steps
        self.schedule = AlphaBar(schedule, steps)
        self.alpha_bar = self.schedule.values

    def state(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t."""
        signal, spread = self.schedule.coefficients(t, x0)
        return signal * x0 + spread * noise

    def snr(self, t: Tensor) -> Tensor:
        """(B,): signal over noise, for vectors of variance 1."""
        bar = self.schedule.at(t, t)
        return bar / (1 - bar)

    def denoiser(self, network: Network) -> Denoiser[int]:
        """A network (x_t, t (B,)) -> epsilon, as the function (x_t, t) -> x_0 that samplers take."""

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.full((x.shape[0],), t, device=x.device)
            signal, spread = self.schedule.coefficients(times, x)
            return (x - spread * network(x, times)) / signal

        return denoise
