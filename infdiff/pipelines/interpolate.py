"""From one image to another: latents on the line between theirs, DDIM noise on the great circle between theirs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import PointNetwork
from infdiff.diffusion.samplers import ddim_inversion
from infdiff.diffusion.schedules import sampling_times
from infdiff.pipelines.generate import generate, image_network


@torch.no_grad()
def interpolate(
    denoiser: PointNetwork,
    process: MollifiedDiffusion,
    ends: Tensor,
    *,
    z: Tensor | None,
    frames: int,
    steps: int = 50,
    tile: int | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Two images (2, C, H, W) in [-1, 1] and their latents (2, z_dim) -> (frames, C, H, W), both ends included.

    Deterministic: each frame is what DDIM makes of its latent and noise, so the ends are reconstructions.
    """
    size, device = (ends.shape[2], ends.shape[3]), ends.device
    denoise = process.denoiser(image_network(denoiser, size, z, 2, device, tile))
    noise = ddim_inversion(
        denoise, process.mollifier(ends), sampling_times(process.steps, steps), alpha_bar=process.alpha_bar
    )
    pictures = []
    for frame in range(frames):
        part = frame / max(1, frames - 1)
        options = {"z": None if z is None else torch.lerp(z[:1], z[1:], part), "steps": steps}
        start = spherical(noise[:1], noise[1:], part)
        pictures.append(
            generate(
                denoiser,
                process,
                size=size,
                seed=0,
                indices=[frame],
                device=device,
                tile=tile,
                start=start,
                on_step=on_step,
                **options,
            )
        )
    return torch.cat(pictures)


def spherical(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Between two noises, as large on the way as at the ends, where a straight line would be smaller."""
    cosine = float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, part)
    return (math.sin((1 - part) * angle) * a + math.sin(part * angle) * b) / math.sin(angle)
