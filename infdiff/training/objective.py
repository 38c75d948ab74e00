"""The training objective of ∞-Diff: denoise mollified images at a random subset of their pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infdiff.coordinates import Size
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.images.pixels import from_uint8
from infdiff.points import draw_points, gather


class MollifiedObjective:
    """Mean squared error of the network's prediction at `points` of the pixels (Eq. 42 for the paper's target).

    Called with the modules to use (so that averaged weights are measured by the same code), images (B, 3, H, W) uint8
    and a generator on their device, which alone decides every draw. points: how many for images of a size.
    """

    def __init__(
        self,
        process: MollifiedDiffusion,
        *,
        points: Callable[[Size], int],
        kind: str,
        flip: bool,
        latent_noise: float = 0.0,
    ) -> None:
        self.process, self.points, self.kind, self.flip = process, points, kind, flip
        self.latent_noise = latent_noise

    def __call__(self, modules: Mapping[str, nn.Module], images: Tensor, generator: torch.Generator) -> Tensor:
        process, (batch, channels, height, width) = self.process, images.shape
        device, size = images.device, (height, width)
        x0 = from_uint8(images)
        if self.flip:
            x0 = mirror_at_random(x0, generator)
        t = torch.randint(1, process.steps + 1, (batch,), device=device, generator=generator)
        white, noise = process.mollifier.noise_pair(batch, channels, size, [generator])
        ids = self._draw(batch, size, generator)
        values = [gather(image, ids) for image in (x0, white, process.mollifier(x0), noise)]
        target = process.training_target(*values, t)
        state = process.state(values[2], values[3], t)
        z = self._encode(modules, x0, generator)
        denoiser = modules["denoiser"]
        prediction = denoiser(process.network_input(state, t), denoiser.geometry(ids, size), t, z)
        return F.mse_loss(prediction.float(), target)

    def _encode(self, modules: Mapping[str, nn.Module], x0: Tensor, generator: torch.Generator) -> Tensor | None:
        """The latent, from a subset of the clean image of its own.

        Noise on it makes latents between those of the training images mean something, too.
        """
        encoder = modules.get("encoder")
        if encoder is None:
            return None
        size = (x0.shape[2], x0.shape[3])
        ids = self._draw(x0.shape[0], size, generator)
        z = encoder(gather(x0, ids), encoder.geometry(ids, size))
        if self.latent_noise:
            z = z + self.latent_noise * torch.randn(z.shape, device=z.device, generator=generator)
        return z

    def _draw(self, batch: int, size: Size, generator: torch.Generator) -> Tensor:
        return draw_points(batch, self.points(size), size, generator, self.kind)


def mirror_at_random(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every second of the images (B, C, H, W), on average, with its columns in reverse."""
    flipped = torch.rand(images.shape[0], 1, 1, 1, device=images.device, generator=generator) < 0.5
    return torch.where(flipped, images.flip(-1), images)
