"""The training objective of EDM, for images of any size: DFU is trained on several."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infdiff.diffusion.edm import EDM
from infdiff.images.pixels import from_uint8
from infdiff.training.objective import mirror_at_random


class EDMObjective:
    """lambda(sigma) |D(y + sigma n; sigma) - y|^2, the mean over pixels and channels (EDM Eqs. 2 and 8).

    Called with {"denoiser": F_theta}, images (B, 3, H, W) uint8, and a generator on their device, which alone decides
    every draw.
    """

    def __init__(self, process: EDM, *, flip: bool) -> None:
        self.process, self.flip = process, flip

    def __call__(self, modules: Mapping[str, nn.Module], images: Tensor, generator: torch.Generator) -> Tensor:
        process, (batch, channels, height, width) = self.process, images.shape
        image = from_uint8(images)
        clean = process.clean(mirror_at_random(image, generator) if self.flip else image)
        sigma = process.draw_sigma(batch, generator)
        noise = process.noise(batch, channels, (height, width), [generator])
        estimate = process.denoise(modules["denoiser"], clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
        error = (estimate - clean).square().mean(dim=(1, 2, 3))
        return (process.loss_weight(sigma) * error).mean()
