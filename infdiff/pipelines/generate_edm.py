"""Images of any size from a network on whole images, by EDM's sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.process import Network
from infdiff.diffusion.samplers import heun
from infdiff.diffusion.schedules import sigma_steps
from infdiff.seeding import generator_for


@torch.no_grad()
def generate_edm(
    denoiser: Network,
    process: EDM,
    *,
    size: Size,
    seed: int,
    indices: Sequence[int],
    device: torch.device,
    steps: int = 18,
    churn: float = 0.0,
    channels: int = 3,
    on_step: Callable[[], None] | None = None,
    **levels: float,
) -> Tensor:
    """Images y (B, C, H, W), in [-1, 1] or a little beyond; image `indices[i]` depends on (seed, indices[i]) alone.

    churn: S_churn, fresh noise at every step. levels: sigma_min, sigma_max and rho, as `sigma_steps`.
    on_step is called after each evaluation of the network, 2 steps - 1 times.
    """
    generators = [generator_for(device, seed, "image", i) for i in indices]
    denoise = process.denoiser(denoiser)

    def counted(x: Tensor, sigma: float) -> Tensor:
        estimate = denoise(x, sigma)
        if on_step is not None:
            on_step()
        return estimate

    def noise() -> Tensor:
        return process.noise(len(indices), channels, size, generators)

    return heun(counted, noise(), sigma_steps(steps, **levels), noise=noise, s_churn=churn)
