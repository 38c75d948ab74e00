"""Processes of the latent model: noise predicted at even times, as in DiffAE, or EDM.

Latents are normalised, vectors (B, z_dim) of variance 1. Networks are functions (states, times) -> a prediction.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.process import Network
from infdiff.diffusion.samplers import ddim, heun
from infdiff.diffusion.schedules import sampling_times, sigma_steps

PROCESSES = ("ddpm", "edm")


class LatentProcess(Protocol):
    """Noises latents z (B, z_dim), and draws them."""

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return times or noise levels (batch,) for training."""

    def error(self, network: Network, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the loss of each number (B, z_dim), at the times or levels t (B,)."""

    def snr(self, t: Tensor) -> Tensor:
        """Return signal over noise (B,)."""

    def from_noise(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        """Return latents drawn in `steps` steps, which draw no noise of their own."""

    def from_part(self, network: Network, z: Tensor, noise: Tensor, steps: int, part: float) -> Tensor:
        """Diffuse latents a part of the way, above 0 and at most 1, and return what is drawn from there."""


class LatentDDPM(GaussianDiffusion):
    """Mean absolute error of the noise at even times, and DDIM: Preechakul et al. (2022)."""

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, self.steps + 1, (batch,), device=generator.device, generator=generator)

    def error(self, network: Network, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return (network(self.state(z, noise, t), t).float() - noise).abs()

    def from_noise(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        return self._drawn(network, noise, self.steps, steps)

    def from_part(self, network: Network, z: Tensor, noise: Tensor, steps: int, part: float) -> Tensor:
        start = round(part * self.steps)
        if start == 0:
            return z
        return self._drawn(network, self.state(z, noise, z.new_full((len(z),), start, dtype=torch.long)), start, steps)

    def _drawn(self, network: Network, state: Tensor, start: int, steps: int) -> Tensor:
        times = sampling_times(start, min(start, steps))
        return ddim(self.denoiser(network), state, times, alpha_bar=self.alpha_bar, noise=lambda: state)


class LatentEDM(EDM):
    """EDM (Karras et al. 2022) for vectors of variance 1, trained at noise of 0.67 (exp P_mean) in the middle."""

    def __init__(self) -> None:
        super().__init__(sigma_data=1.0, P_mean=-0.4, P_std=1.2)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        return self.draw_sigma(batch, generator)

    def error(self, network: Network, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        estimate = self.denoise(_of_times(network), self.state(z, noise, t), t)
        return self.loss_weight(t).view(-1, 1) * (estimate.float() - z).square()

    def from_noise(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        return self._drawn(network, noise, sigma_steps(steps))

    def from_part(self, network: Network, z: Tensor, noise: Tensor, steps: int, part: float) -> Tensor:
        sigmas = sigma_steps(steps)[-1 - max(1, round(part * steps)) :]
        return self._drawn(network, z / sigmas[0] + noise, sigmas)

    def _drawn(self, network: Network, noise: Tensor, sigmas: list[float]) -> Tensor:
        return heun(self.denoiser(_of_times(network)), noise, sigmas, noise=lambda: noise)


def _of_times(network: Network) -> Network:
    """The network, whose embedding is of times up to 1,000, as a function of (states, ln(sigma) / 4)."""
    return lambda x, c_noise: network(x, 1000 * c_noise)
