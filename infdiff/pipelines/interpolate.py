"""Images between two: latents on the line between theirs, DDIM noise on the great circle between theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import Network
from infdiff.diffusion.samplers import ddim, ddim_inversion
from infdiff.pipelines.generate import generate


@torch.no_grad()
def interpolate(
    network_at: Callable[[Tensor], Network],
    process: MollifiedDiffusion,
    ends: Tensor,
    *,
    z: Tensor,
    frames: int,
    times: Sequence[int],
    sharp_at: int | None = None,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Two images (2, C, H, W) in [-1, 1] and their latents (2, z_dim) -> (frames, C, H, W), both ends included.

    network_at(z): the network of as many images as there are latents. times: of the steps. sharp_at: as
    `MollifiedDiffusion.denoiser`.
    Deterministic: each frame is what DDIM makes of its latent and noise, so the ends are reconstructions.
    """
    size, bars = (ends.shape[2], ends.shape[3]), process.alpha_bar
    noise = ddim_inversion(process.denoiser(network_at(z)), process.mollifier(ends), times, alpha_bar=bars)
    images = []
    for frame in range(frames):
        part = frame / max(1, frames - 1)
        images.append(
            generate(
                network_at(torch.lerp(z[:1], z[1:], part)),
                process,
                size=size,
                seed=0,
                indices=[frame],
                device=ends.device,
                sample=lambda denoise, first, noise: ddim(denoise, first(), times, alpha_bar=bars, noise=noise),
                start=spherical(noise[:1], noise[1:], part),
                denoiser=partial(process.denoiser, sharp_at=sharp_at),
                on_step=on_step,
                channels=ends.shape[1],
            )
        )
    return torch.cat(images)


def spherical(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Noise between two noises, as large on the way as at the ends, where a straight line would be smaller."""
    cosine = float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, part)
    return (math.sin((1 - part) * angle) * a + math.sin(part * angle) * b) / math.sin(angle)
