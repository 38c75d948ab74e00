"""Images of any size from a network and a process, by any sampler; latents of images from an encoder."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.cuda_graphs import RepeatedCalls
from infdiff.diffusion.process import Denoiser, ImageProcess, Network, PointNetwork, Sample, Time
from infdiff.images.pixels import to_values, valid_pixels
from infdiff.points import all_points, draw_points, draw_valid_points, gather
from infdiff.seeding import generator_for


def on_all_pixels(denoiser: PointNetwork, size: Size, batch: int, device: torch.device) -> Callable[..., Tensor]:
    """A network on points as one on images (B, C, H, W) of a size, times (B,), latents and labels (B, D), if any."""
    geometry = denoiser.geometry(all_points(batch, size, device), size)

    def network(x: Tensor, t: Tensor, z: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        condition = (t, z) if label is None else (t, z, label)
        return denoiser(x.flatten(2).mT, geometry, *condition).mT.unflatten(2, size)

    return network


def repeated(
    calls: RepeatedCalls | None, key: Hashable, make: Callable[[], Callable[..., Tensor]]
) -> Callable[..., Tensor]:
    """A network at one size, made by make(): the one that `calls` keeps under a key, where there are any."""
    return make() if calls is None else calls.of(key, make)


@torch.no_grad()
def generate(
    network: Network,
    process: ImageProcess[Time],
    *,
    size: Size,
    seed: int,
    indices: Sequence[int],
    device: torch.device,
    sample: Sample[Time],
    start: Tensor | None = None,
    denoiser: Callable[[Network], Denoiser[Time]] | None = None,
    guide: Callable[[Denoiser[Time]], Denoiser[Time]] | None = None,
    on_step: Callable[[], object] | None = None,
    channels: int = 3,
) -> Tensor:
    """The process's clean images (B, C, H, W), in [-1, 1] or a little beyond.

    Image `indices[i]` depends on (seed, indices[i]) and on what the network makes of row i alone.
    start: noise to begin with instead of drawn noise. denoiser: instead of the process's own. guide: wraps the
    denoiser, as `guided` does. on_step is called after each evaluation of the network.
    """
    generators = [generator_for(device, seed, "image", i) for i in indices]
    denoise = (process.denoiser if denoiser is None else denoiser)(network)
    follow = denoise if guide is None else guide(denoise)

    def counted(x: Tensor, t: Time) -> Tensor:
        estimate = follow(x, t)
        if on_step is not None:
            on_step()
        return estimate

    def noise() -> Tensor:
        return process.noise(len(indices), channels, size, generators)

    return sample(counted, noise if start is None else lambda: start, noise)


@torch.no_grad()
def encode(encoder: PointNetwork, images: Tensor, *, points: int, seed: int = 0) -> Tensor:
    """Latents (B, z_dim) of clean images (B, C, H, W), read at the same `points` pixels of each (at most all).

    images: uint8, or float32 fields, of which those with missing pixels (NaN) are read at valid ones alone.
    """
    size = (images.shape[2], images.shape[3])
    if images.is_floating_point() and bool(images.isnan().any()):
        return torch.cat([_encode_known(encoder, image[None], points, seed) for image in images])
    ids = draw_points(1, min(points, size[0] * size[1]), size, generator_for(images.device, seed, "encode")).expand(
        len(images), -1
    )
    return encoder(to_values(gather(images, ids)), encoder.geometry(ids, size))


def _encode_known(encoder: PointNetwork, image: Tensor, points: int, seed: int) -> Tensor:
    """The latent (1, z_dim) of a field (1, C, H, W), whose count of points is its own where few are valid."""
    valid = valid_pixels(image)
    count = min(points, int(valid.sum()))
    if count == 0:
        raise ValueError("every pixel is missing: there is nothing to encode")
    ids = draw_valid_points(valid, count, generator_for(image.device, seed, "encode"))
    return encoder(gather(image.float(), ids), encoder.geometry(ids, (image.shape[2], image.shape[3])))
