"""Super-resolution: an image at a larger size, with detail that the model adds (∞-Diff section 5, Fig. 8).

"encode" is the paper's way: the small image's latent, sampled larger. "guided" keeps what the input says: it starts
from the input's own DDIM noise, read at the larger size as the function it is, and guides every estimate towards
the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.dct import resample
from infdiff.diffusion.guidance import guided
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import PointNetwork
from infdiff.diffusion.samplers import ddim_inversion
from infdiff.diffusion.schedules import sampling_times
from infdiff.pipelines.generate import generate, image_network

METHODS = ("guided", "encode")

_BACK_PROJECTIONS = 3


@torch.no_grad()
def super_resolve(
    denoiser: PointNetwork,
    process: MollifiedDiffusion,
    small: Tensor,
    *,
    size: Size,
    z: Tensor | None,
    seed: int,
    indices: Sequence[int] | None = None,
    method: str = "guided",
    steps: int = 50,
    weight: float = 1.0,
    tile: int | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Images `small` (B, C, h, w) in [-1, 1], latents z (B, z_dim) -> (B, C, H, W) of `size`, in [-1, 1].

    indices: numbers of the images, by default from 0: what is drawn for image i depends on (seed, indices[i]) alone.
    tile: rows at a time with "encode"; "guided" differentiates the network, which takes all of them at once.
    Raises ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    batch, device = small.shape[0], small.device
    options: dict[str, Any] = {"size": size, "seed": seed, "z": z, "device": device, "steps": steps, "on_step": on_step}
    options["indices"] = range(batch) if indices is None else indices
    if method == "encode":
        return generate(denoiser, process, tile=tile, **options)
    mollified = process.mollifier(small)
    denoise = process.denoiser(image_network(denoiser, small_size(small), z, batch, device))
    noise = ddim_inversion(denoise, mollified, sampling_times(process.steps, steps), alpha_bar=process.alpha_bar)
    start = resample(noise, size)
    out = generate(
        denoiser,
        process,
        start=start,
        guide=lambda denoise: guided(
            denoise, lambda image: reduce(image, small_size(small)), mollified, weight, process.mollifier.twice
        ),
        **options,
    )
    return back_project(out, small)


def small_size(images: Tensor) -> Size:
    return images.shape[2], images.shape[3]


def reduce(images: Tensor, size: Size) -> Tensor:
    """(B, C, H, W) -> the means over the cells of a smaller size: what its pixels see."""
    return F.interpolate(images, size, mode="area")


def back_project(images: Tensor, small: Tensor) -> Tensor:
    """Add what is missing, smoothly, until the images reduced are the small ones, in [-1, 1]."""
    size = small_size(images)
    for _ in range(_BACK_PROJECTIONS):
        missing = small - reduce(images, small_size(small))
        images = (images + F.interpolate(missing, size, mode="bicubic", align_corners=False)).clamp(-1, 1)
    return images
