"""Images of any size from a trained denoiser: every pixel of the wanted size is a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.process import Denoiser, Network, PointNetwork
from infdiff.diffusion.samplers import SAMPLERS
from infdiff.diffusion.schedules import sampling_times
from infdiff.images.pixels import from_uint8
from infdiff.memory import trim_heap
from infdiff.points import all_points, draw_points, gather
from infdiff.seeding import generator_for


def image_network(
    denoiser: Any, size: Size, z: Tensor | None, batch: int, device: torch.device, tile: int | None = None
) -> Network:
    """The denoiser on all pixels of images (B, C, H, W) of one size, with latents z (B, z_dim) or None.

    tile: rows of pixels at a time, in little memory and without gradients; None: all at once.
    """
    if tile is not None:

        def in_strips(x: Tensor, t: Tensor) -> Tensor:
            trim_heap()
            out = denoiser.in_strips(x, t, z, tile)
            trim_heap()
            return out

        return in_strips
    geometry = denoiser.geometry(all_points(batch, size, device), size)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return denoiser(x.flatten(2).mT, geometry, t, z).mT.unflatten(2, size)

    return network


@torch.no_grad()
def generate(
    denoiser: Any,
    process: MollifiedDiffusion,
    *,
    size: Size,
    seed: int,
    indices: Sequence[int],
    z: Tensor | None,
    device: torch.device,
    sampler: str = "ddim",
    steps: int = 50,
    eta: float = 0.0,
    tile: int | None = None,
    channels: int = 3,
    start: Tensor | None = None,
    guide: Callable[[Denoiser[int]], Denoiser[int]] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Mollified images T x_0 (B, C, H, W) in [-1, 1]; image `indices[i]` depends on (seed, indices[i]) and z[i] alone.

    tile: as `image_network`. start: T xi to begin with, instead of drawn noise. guide: turns the denoiser into one that
    heeds what is known.
    on_step is called after each evaluation of the network.
    """
    generators = [generator_for(device, seed, "image", i) for i in indices]
    denoise = process.denoiser(image_network(denoiser, size, z, len(indices), device, tile))
    follow = denoise if guide is None else guide(denoise)

    def counted(x: Tensor, t: int) -> Tensor:
        estimate = follow(x, t)
        if on_step is not None:
            on_step()
        return estimate

    def noise() -> Tensor:
        return process.mollifier.noise(len(indices), channels, size, generators)

    times, bars, entry = sampling_times(process.steps, steps), process.alpha_bar, SAMPLERS[sampler]
    # Called directly: a forwarding frame would keep the first noise, as large as the image, alive until the end.
    if "eta" in entry.options:
        return entry.run(counted, noise() if start is None else start, times, alpha_bar=bars, noise=noise, eta=eta)
    return entry.run(counted, noise() if start is None else start, times, alpha_bar=bars, noise=noise)


@torch.no_grad()
def encode(encoder: PointNetwork, images: Tensor, *, points: int, seed: int = 0) -> Tensor:
    """Latents (B, z_dim) of clean images (B, C, H, W) uint8, read at the same `points` pixels of each (at most all)."""
    size = (images.shape[2], images.shape[3])
    ids = draw_points(1, min(points, size[0] * size[1]), size, generator_for(images.device, seed, "encode")).expand(
        len(images), -1
    )
    return encoder(gather(from_uint8(images), ids), encoder.geometry(ids, size))
