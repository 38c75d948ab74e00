"""The training objective of the latent diffusion model: the noise in normalised latents, in the mean absolute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.diffusion.gaussian import GaussianDiffusion


class LatentObjective:
    """L1 between the noise and the prediction of modules["latent"], for latents (B, z_dim)."""

    def __init__(self, process: GaussianDiffusion) -> None:
        self.process = process

    def __call__(self, modules: Mapping[str, nn.Module], latents: Tensor, generator: torch.Generator) -> Tensor:
        shape = (latents.shape[0],)
        t = torch.randint(1, self.process.steps + 1, shape, device=latents.device, generator=generator)
        noise = torch.randn(latents.shape, device=latents.device, generator=generator)
        prediction = modules["latent"](self.process.state(latents, noise, t), t)
        return F.l1_loss(prediction.float(), noise)
